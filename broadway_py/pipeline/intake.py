"""Where messages enter the books: each is looked at, gets its receipt, and passes the transformer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broadway_py._core.ledger import Ledger, Receipt
from broadway_py.clock import Clock
from broadway_py.error_text import text_of
from broadway_py.errors import MalformedMessage
from broadway_py.log import logger
from broadway_py.message import Failed, Message
from broadway_py.pipeline.failure_log import id_of
from broadway_py.pipeline.worker import transform
from broadway_py.producer import Deliveries

__all__ = ["Intake"]

log = logger("broadway_py.pipeline")


class Intake:
    """Of one copy of a producer.

    Args:
        pipeline: its name, for the log.
        index: position among the copies, for the log.
        ledger: the producer's books, shared by its copies.
        clock: for the receipts.
        transformer: called on every message that comes in; None: there is none.
    """

    def __init__(
        self,
        pipeline: str,
        index: int,
        ledger: Ledger,
        clock: Clock,
        transformer: Callable[[Message[Any]], object] | None,
    ) -> None:
        self._log = log.bind(pipeline=pipeline, producer=ledger.producer, index=index)
        self._ledger = ledger
        self._clock = clock
        self._transformer = transformer

    def enter(self, messages: Sequence[Any]) -> list[Message[Any]]:
        """Receive *messages* together; those that are new messages, the others are complained of and left out."""
        fresh: list[Message[Any]] = []
        size = redelivered = 0
        receipt = Receipt(self._ledger, self._clock.monotonic())
        # Of these it is known without a look into the metadata.
        known = messages if isinstance(messages, Deliveries) else None
        for message in messages:
            if not isinstance(message, Message) or message._receipt is not None:
                self._refuse(message)
                continue
            message._receipt = receipt
            size += message.size
            fresh.append(message)
            if known is None:
                try:
                    metadata = message.metadata
                except MalformedMessage as error:
                    message.status = Failed("invalid", text_of(error), error)
                    continue
                if metadata and metadata.get("redelivered"):
                    redelivered += 1
        if known is not None:
            redelivered = known.redelivered
        if fresh:
            self._ledger.receive(receipt, len(fresh), size, redelivered)
            if self._transformer is not None:
                transform(fresh, self._transformer)
        return fresh

    def _refuse(self, thing: object) -> None:
        if isinstance(thing, Message):
            self._log.error(
                "the producer returned a message that is in a pipeline already; it was left out",
                message_id=id_of(thing),
            )
        else:
            self._log.error(
                "the producer returned something that is no Message; it was left out",
                expected="broadway_py.Message",
                got=type(thing).__name__,
            )
