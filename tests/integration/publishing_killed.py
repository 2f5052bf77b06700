"""A pipeline that publishes what it consumes, to be killed.

``python -m tests.integration.publishing_killed SOURCE OUT``: SOURCE and OUT are sections of settings, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from broadway_py import FailurePolicy, Message, Pipeline, Processors, RateLimit
from broadway_py.producers.kinds import build
from broadway_py.producers.sink_kinds import build_sink


class Relaying(Pipeline[bytes]):
    """Publishes each message under its own name, not too fast, so that there is time to kill it."""

    processors = Processors(concurrency=20)
    rate_limit = RateLimit(allowed_messages=100, interval=0.1)
    failure = FailurePolicy()

    async def handle_message(self, message: Message[bytes]) -> None:
        name = message.data.decode()
        await self.publishers["out"].publish(message, key=name, message_id=name)


async def main() -> None:
    source, out = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    publishers: dict[str, Any] = {"out": build_sink(out, ("out",))}
    async with Relaying(producer=build(source, ("source",)), publishers=publishers) as pipeline:
        await pipeline.wait()


if __name__ == "__main__":
    asyncio.run(main())
