"""Enters messages into the ledger: each is checked, keeps its entry, and passes the transformer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from broadway_py._core.identity import id_of
from broadway_py._core.ledger import Ledger
from broadway_py.clock import Clock
from broadway_py.error_text import text_of
from broadway_py.errors import MalformedMessage
from broadway_py.foreign import article, foreign_errors, is_a, type_name
from broadway_py.log import logger
from broadway_py.message import Failed, Message
from broadway_py.pipeline.contexts import CleanRoom
from broadway_py.pipeline.settlement.failures import failure_from, transform
from broadway_py.producer import Deliveries
from broadway_py.trace_place import TraceSource
from broadway_py.tracing import Tracer

__all__ = ["Receiver", "TracedReceiver"]

log = logger("broadway_py.pipeline")


class Receiver:
    """Takes in the messages of one source.

    Args:
        pipeline: the pipeline's name, for the log.
        index: position of the source among those of the producer, for the log.
        ledger: the producer's ledger; all copies share it.
        clock: the clock for the entries.
        transformer: called on every message that comes in, or None.
        room: gives the transformer a clean context.
    """

    def __init__(
        self,
        pipeline: str,
        index: int,
        ledger: Ledger,
        clock: Clock,
        *,
        transformer: Callable[[Message[Any]], object] | None,
        room: CleanRoom,
    ) -> None:
        self._log = log.bind(pipeline=pipeline, producer=ledger.producer, index=index)
        self._ledger = ledger
        self._clock = clock
        self._transformer = transformer
        self._room = room

    def enter(self, messages: Sequence[Any]) -> list[Message[Any]]:
        """Receive *messages* together. Returns the new messages; anything else is logged and left out."""
        fresh: list[Message[Any]] = []
        size = redelivered = 0
        entry = self._ledger.begin(self._clock.monotonic())
        # Deliveries count redelivered messages themselves, so the metadata need not be read.
        known = messages if isinstance(messages, Deliveries) else None
        for message in messages if isinstance(messages, list | tuple) else list(messages):
            try:
                is_new = isinstance(message, Message) and message._ledger_entry is None
            except foreign_errors():
                is_new = False  # even the check of its type raised
            if not is_new:
                self._refuse(message)
                continue
            message._ledger_entry = entry
            size += message._size
            fresh.append(message)
            if known is None:
                try:
                    metadata = message.metadata
                    if metadata and type(metadata) is not dict and not is_a(metadata, dict):
                        message.status = _no_metadata(metadata)
                    elif metadata and metadata.get("redelivered"):
                        redelivered += 1
                except MalformedMessage as error:
                    message.status = Failed("invalid", text_of(error), error)
                except foreign_errors() as error:
                    # The metadata may be a dict subclass of the producer that raises.
                    message.status = failure_from(error)
        if known is not None:
            redelivered = known.redelivered
        if fresh:
            self._ledger.receive(entry, fresh, size, redelivered)
            if self._transformer is not None:
                transform(fresh, self._transformer, self._room)
        return fresh

    def _refuse(self, thing: object) -> None:
        if is_a(thing, Message):
            self._log.error(
                "the producer returned a message that is in a pipeline already; it was left out",
                message_id=id_of(cast("Message[Any]", thing)),
            )
        else:
            self._log.error(
                "the producer returned something that is not a Message; it was left out",
                expected="broadway_py.Message",
                got=type_name(thing),
            )


class TracedReceiver(Receiver):
    """Works as :class:`Receiver`, and tells the tracer.

    Args:
        arguments: as for :class:`Receiver`.
        tracer: reads the traces of the messages.
        source: says where the messages come from.
        spanned: True: each list gets a span.
        more: as for :class:`Receiver`.
    """

    def __init__(self, *arguments: Any, tracer: Tracer, source: TraceSource, spanned: bool, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._tracer = tracer
        self._source = source
        self._spanned = spanned

    def enter(self, messages: Sequence[Any]) -> list[Message[Any]]:
        """Receive *messages* together, as :meth:`Receiver.enter`."""
        fresh = super().enter(messages)
        self._tracer.receive(fresh, self._source, spanned=self._spanned)
        return fresh


def _no_metadata(metadata: object) -> Failed:
    sentence = f"expected the metadata of a message as a dict, got {article(metadata)}; correct the producer"
    return Failed("invalid", sentence, TypeError(sentence))
