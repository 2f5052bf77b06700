"""Examines the files in which a pipeline keeps its state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from broadway_py.examination import Finding
from broadway_py.state import examination

__all__ = ["examine_state"]


async def examine_state(path: str, partitions: Sequence[int] | None, timeout: float) -> AsyncGenerator[Finding, None]:
    """Yields what the file at *path* is like; with *partitions*, each of their files in the directory *path*."""
    async with asyncio.timeout(timeout):
        found = await asyncio.to_thread(examination.examine_state, path, partitions)
    for finding in found:
        yield finding
