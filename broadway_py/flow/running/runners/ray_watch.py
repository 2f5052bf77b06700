"""Notices within seconds that a process of Ray has ended. Ray itself takes a quarter of a minute to notice it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["LOOK_S", "Endpoint", "Watch"]

#: Seconds from one look to the next one.
LOOK_S: Final = 2.0
#: In how many looks in a row a process refuses connections that has ended. Another head may take the place of one.
_LOOKS: Final = 2


class Endpoint(NamedTuple):
    """Where a process takes connections."""

    host: str
    port: int


class Watch:
    """Looks whether processes take connections.

    A process that has no time takes them all the same: the system does it. One that has ended refuses them. Where no
    answer comes, the network may be at fault, and Ray decides.
    """

    def __init__(self) -> None:
        self._refusals: Counter[Endpoint] = Counter()

    async def look(self, endpoints: Iterable[Endpoint]) -> set[Endpoint]:
        """Returns which of *endpoints* have ended."""
        watched = list(endpoints)
        for endpoint, refuses in zip(watched, await asyncio.gather(*map(_refuses, watched)), strict=True):
            self._refusals[endpoint] = self._refusals[endpoint] + 1 if refuses else 0
        return {each for each in watched if self._refusals[each] >= _LOOKS}

    def has_refused(self, endpoint: Endpoint) -> bool:
        """Returns whether *endpoint* has refused the last look at it."""
        return self._refusals[endpoint] > 0


async def _refuses(endpoint: Endpoint) -> bool:
    """Returns whether a process refuses connections; also False if no answer comes."""
    try:
        async with asyncio.timeout(LOOK_S):
            _, writer = await asyncio.open_connection(*endpoint)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return False
