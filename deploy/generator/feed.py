"""A pipeline that feeds another one: it makes up shipments and puts them on the queue that the other one reads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors
from broadway_py.daemon.sending.targets import Put, target_of
from broadway_py.daemon.settings.settings import read_settings
from broadway_py.examples.shipments import lines
from broadway_py.producers import MemoryProducer
from broadway_py.publisher import Outgoing


class Feed(Pipeline[str]):
    """Keeps one connection to the queue; after a failure the next batch opens a new one.

    ``context``: ``settings``, a file, and ``pipeline``, the name in it whose queue is fed.
    """

    processors = Processors(concurrency=1)
    batchers = {"default": Batcher(batch_size=50, batch_timeout=0.5)}  # noqa: RUF012  # an option of the pipeline
    # What could not be sent is forgotten: more is made up.
    failure = None

    def __init__(self, **options: Any) -> None:
        place = options["context"]
        self._target = target_of(read_settings([Path(place["settings"])]), place["pipeline"])
        self._open = AsyncExitStack()
        self._put: Put | None = None
        super().__init__(**{"producer": MemoryProducer(lines()), **options})

    async def handle_message(self, message: Message[str]) -> None:
        """Every line goes to the queue as it is."""

    async def handle_batch(self, messages: Sequence[Message[str]], info: BatchInfo) -> None:  # a callback
        """All of them are on the queue when it returns."""
        try:
            if self._put is None:
                self._put = await self._open.enter_async_context(self._target())
            await self._put([Outgoing(data=message.data.encode()) for message in messages])
        except BaseException:
            await self.teardown()
            raise

    async def teardown(self) -> None:
        """Close the connection."""
        self._put = None
        stack, self._open = self._open, AsyncExitStack()
        await stack.aclose()
