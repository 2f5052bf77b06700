"""A pipeline with windows, to be killed: ``python -m tests.integration.windows_killed FOLDER SOURCE``.

SOURCE is a section of settings, as JSON. What is emitted is appended to the file ``emitted``, one JSON list for each
call.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from broadway_py import RateLimit
from broadway_py.producers.kinds import build
from tests.integration.window_pipelines import Counting


class Killed(Counting):
    """Counts what comes, not too fast, so that there is time to kill it."""

    rate_limit = RateLimit(allowed_messages=400, interval=0.1)


async def main() -> None:
    folder, source = Path(sys.argv[1]), json.loads(sys.argv[2])
    async with Killed(
        producer=build(source, ("source",)), state=str(folder / "state.db"), context={"folder": str(folder)}
    ) as pipeline:
        await pipeline.wait()


if __name__ == "__main__":
    asyncio.run(main())
