"""A program: it takes messages from a producer and holds them, until it is killed. For the suite of producers.

Standard input has a pickled function that makes the producer, as text, and how many messages to take.
"""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from broadway_py.testing.driving import DEADLINE_S, copy_of, take

__all__ = ["held_by_another_process"]


@asynccontextmanager
async def held_by_another_process(make: Callable[[], Any], count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process that holds *count* messages of the producer that *make* returns. It is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the pipes were asked for")
        process.stdin.write(b"%s %d\n" % (base64.b64encode(pickle.dumps(make)), count))
        async with asyncio.timeout(2 * DEADLINE_S):
            said = await process.stdout.readline()
        if said != b"holds\n":
            raise AssertionError(f"the other process did not take {count} messages: it said {said!r}; see its error")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _hold(make: Callable[[], Any], count: int) -> None:
    copy = copy_of(make(), capacity=count, pipeline="killed")
    await copy.open()
    taken = await take(copy, count)
    os.write(1, b"holds\n")
    # Until it is killed. If the test has died, its end of the pipe is closed.
    await asyncio.to_thread(sys.stdin.read)
    del taken


if __name__ == "__main__":
    pickled, number = sys.stdin.readline().split()
    asyncio.run(_hold(pickle.loads(base64.b64decode(pickled)), int(number)))  # noqa: S301  # the test has made it
