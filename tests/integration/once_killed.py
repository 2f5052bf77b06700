"""A pipeline with ``deduplicate_by``, to be killed.

``python -m tests.integration.once_killed FOLDER SOURCE MOMENT OUT`` runs it.

SOURCE is a section of settings, as JSON, and so is OUT: where each message is published to, or null. The handler then
appends the number of the message to the file ``handled``. MOMENT is empty, or says when the process kills itself:
"before the commit" or "before the ack".
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broadway_py import Message, Pipeline, Processors
from broadway_py.pipeline.aggregation.committer import Committed
from broadway_py.pipeline.deduplication.handled_ids import HandledIds
from broadway_py.producers.kinds import build
from broadway_py.producers.sink_kinds import build_sink


class Killed(Pipeline[bytes]):
    """Handles each message once, not too fast, so that there is time to kill it."""

    deduplicate_by = "id"
    processors = Processors(concurrency=4)

    async def setup(self) -> None:
        self.handled = os.open(Path(self.context["folder"]) / "handled", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def handle_message(self, message: Message[bytes]) -> None:
        await asyncio.sleep(0.001)
        if self.publishers:
            await self.publishers["out"].publish(message)
        os.write(self.handled, f"{json.loads(message.data)['number']}\n".encode())


def kill_itself(moment: str) -> None:
    """Let the process be gone before the first commit of ids, or after it."""
    store = HandledIds.store

    async def store_and_die(self: HandledIds, identities: Sequence[bytes]) -> Committed:
        if moment == "before the ack":
            assert await store(self, identities) == "stored"
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    HandledIds.store = store_and_die  # type: ignore[method-assign]  # that is what this is for


async def main() -> None:
    folder, source = Path(sys.argv[1]), json.loads(sys.argv[2])
    if sys.argv[3]:
        kill_itself(sys.argv[3])
    context: dict[str, Any] = {"folder": str(folder)}
    out = json.loads(sys.argv[4])
    async with Killed(
        producer=build(source, ("source",)),
        state=str(folder / "ids.db"),
        context=context,
        publishers={} if out is None else {"out": build_sink(out, ("out",))},
    ) as pipeline:
        await pipeline.wait()


if __name__ == "__main__":
    asyncio.run(main())
