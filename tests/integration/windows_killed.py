"""A pipeline with windows, to be killed: ``python -m tests.integration.windows_killed FOLDER SOURCE``.

SOURCE is a section of settings, as JSON. What is emitted is appended to the file ``emitted``, one JSON list for each
call.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from broadway_py import Aggregator, Message, Pipeline, Processors, RateLimit, Window, WindowResult
from broadway_py.producers.kinds import build

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()


class Counts(Aggregator[str, dict[str, Any], int]):
    """Counts messages by key and ten seconds."""

    window = Window.fixed(10, by=lambda message: message.data["at"], delay=5, idle_timeout=2)

    def key(self, message: Message[dict[str, Any]]) -> str:
        return str(message.data["key"])

    def initial(self) -> int:
        return 0

    def add(self, acc: int, message: Message[dict[str, Any]]) -> int:
        return acc + 1

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        rows = [[one.id, one.firing, one.key, one.start, one.value, one.count] for one in results]
        with (FOLDER / "emitted").open("a") as file:
            file.write(json.dumps(rows) + "\n")


class Killed(Pipeline[dict[str, Any]]):
    """Counts what comes, not too fast, so that there is time to kill it."""

    aggregators = {"counts": Counts}  # noqa: RUF012  # an option
    processors = Processors(concurrency=4, max_demand=50)
    rate_limit = RateLimit(allowed_messages=400, interval=0.1)
    shutdown_timeout = 10.0

    def transformer(self, message: Message[Any]) -> None:
        message.data = json.loads(message.data)

    async def handle_message(self, message: Message[dict[str, Any]]) -> None:
        """Leaves the message as it is."""


async def main() -> None:
    async with Killed(producer=build(json.loads(sys.argv[2]), ("source",)), state=str(FOLDER / "state.db")) as pipeline:
        await pipeline.wait()


if __name__ == "__main__":
    asyncio.run(main())
