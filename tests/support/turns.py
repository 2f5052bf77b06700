"""A number of turns of the event loop, for what must happen between two steps of something."""

from __future__ import annotations

import asyncio


async def turns(count: int) -> None:
    """Let everything that is ready run *count* times; with 0, nothing runs."""
    for _ in range(count):
        await asyncio.sleep(0)
