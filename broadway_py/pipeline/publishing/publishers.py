"""The publishers of one pipeline: what its callbacks find in ``self.publishers``, and what runs behind it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Mapping

from broadway_py.clock import Clock
from broadway_py.errors import DefinitionError, ProducerError, did_you_mean
from broadway_py.pipeline.publishing.outbox import Outbox
from broadway_py.publisher import Sink
from broadway_py.tracing import Tracer

__all__ = ["Publishers", "UnknownPublisher"]


class UnknownPublisher(DefinitionError, KeyError):
    """The pipeline has no publisher of this name."""

    def __init__(self, name: object, known: Mapping[str, Sink]) -> None:
        names = f"this pipeline has {', '.join(known)}" if known else "this pipeline has no publishers"
        hint = did_you_mean(name, known) if isinstance(name, str) else ""
        super().__init__(f"publishers[{name!r}]: unknown publisher; {names}{hint}")

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would show it in quotes


class Publishers(Mapping[str, Sink]):
    """Name -> the pipeline's own copy of a sink, with ``publish`` and ``publish_many``.

    Args:
        sinks: the option ``publishers``.
    """

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        self._sinks = {name: copy.copy(sink) for name, sink in sinks.items()}
        #: What runs behind each, from :meth:`start` on.
        self.outboxes: dict[str, Outbox] = {}

    def __getitem__(self, name: str) -> Sink:
        try:
            return self._sinks[name]
        except (KeyError, TypeError):
            raise UnknownPublisher(name, self._sinks) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._sinks)

    def __len__(self) -> int:
        return len(self._sinks)

    def __repr__(self) -> str:
        return f"<Publishers {', '.join(self._sinks)}>"

    def start(self, pipeline: str, clock: Clock, context: object) -> None:
        """Let callbacks publish from now on. Nothing is connected yet."""
        for name, sink in self._sinks.items():
            outbox = Outbox(pipeline, name, sink, clock=clock, context=context)
            self.outboxes[name] = outbox
            # It may be the copy of a frozen dataclass.
            object.__setattr__(sink, "_outlet", outbox)

    def trace_by(self, tracer: Tracer) -> None:
        """Let what is published from now on have spans, and carry its trace on."""
        for outbox in self.outboxes.values():
            outbox.trace_by(tracer)

    async def open(self, *, fail_fast: bool) -> None:
        """Begin to connect. With *fail_fast*, the first try of each must succeed.

        Raises:
            ProducerError: it did not; the text names the publisher.
        """
        for name, outbox in self.outboxes.items():
            if fail_fast:
                try:
                    await outbox.open()
                except ProducerError as away:
                    raise type(away)(f"publisher {name!r} could not connect at the start: {away}") from away
            outbox.begin()

    def end_by(self, last_time: float) -> None:
        """Let no call last beyond *last_time* of the clock."""
        for outbox in self.outboxes.values():
            outbox.end_by(last_time)

    async def flush(self) -> None:
        """Wait until nothing is on its way."""
        await asyncio.gather(*(outbox.flush() for outbox in self.outboxes.values()))

    async def close(self) -> None:
        """Give up what is still on its way, and end every connection. Raises nothing."""
        await asyncio.gather(*(outbox.close() for outbox in self.outboxes.values()))
