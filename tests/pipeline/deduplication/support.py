"""What the tests of ``deduplicate_by`` share: a pipeline that does what each test says, and messages with ids."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from broadway_py import BatchInfo, FailurePolicy, Message, Pipeline
from broadway_py.pipeline.stats import DeduplicationStats
from tests.pipeline.support import ONE, Recorder

#: No breaker: some tests fail everything.
PLAIN = FailurePolicy(attempts=5, final="reject", breaker=None)


class Once(Pipeline[Any]):
    """Handles the messages of an id once. Remembers what it has handled, and fails what the test says."""

    deduplicate_by: Any = "id"
    state: Any = "var/never-written.db"
    processors = ONE
    failure = PLAIN

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.handled: list[Any] = []
        #: What is raised for the data of a message, one after the other.
        self.faults: dict[Any, list[BaseException | None]] = defaultdict(list)
        #: Messages with these data wait here until their gate is open; they come in once ``inside`` is set.
        self.gates: dict[Any, asyncio.Event] = {}
        self.inside = asyncio.Event()

    def shut(self, *data: Any) -> None:
        """Let messages with these *data* wait in the handler."""
        for one in data:
            self.gates[one] = asyncio.Event()

    async def handle_message(self, message: Message[Any]) -> None:
        self.handled.append(message.data)
        self.inside.set()
        if message.data in self.gates:
            await self.gates[message.data].wait()
        faults = self.faults[message.data]
        fault = faults.pop(0) if faults else None
        if fault is not None:
            raise fault

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        pass


def sent(recorder: Recorder, *named: tuple[str | None, Any]) -> list[Message[Any]]:
    """Messages with ids and data. An identity has the beginning of the payload in it, if that is text."""
    return [recorder.message(data) if name is None else recorder.message(data, message_id=name) for name, data in named]


def figures(pipeline: Pipeline[Any]) -> DeduplicationStats:
    """The figures of the only partition."""
    (one,) = pipeline.stats().deduplication
    return one
