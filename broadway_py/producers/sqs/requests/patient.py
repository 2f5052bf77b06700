"""Tries requests to SQS again for a while, one request or the rest of a batch."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from broadway_py.clock import Clock
from broadway_py.producers.sqs.requests.batch_entries import retry_delay
from broadway_py.producers.sqs.requests.errors import Kind, Trouble

__all__ = ["Failure", "Requests", "why"]

R = TypeVar("R")
#: Why one entry of a batch failed: its kind of trouble, or the trouble of the whole request.
Failure = Kind | Trouble

#: Seconds for which a request that was throttled, or that broke, is tried again.
_PATIENCE_S: Final = 20.0


class Requests:
    """Carries out requests. *clock* tells the time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def in_batch(
        self, call: Callable[[list[Any]], Awaitable[dict[int, Kind]]], entries: Sequence[Any]
    ) -> dict[int, Failure]:
        """Carries out a batch, and what of it was throttled or broke again. Returns what failed, by position."""
        failed: dict[int, Failure] = {}
        waiting = list(range(len(entries)))
        until = self._clock.monotonic() + _PATIENCE_S
        tries = 0
        while waiting:
            tries += 1
            trouble: Trouble | None = None
            try:
                answer = await call([entries[at] for at in waiting])
            except Trouble as raised:
                trouble, answer = raised, dict.fromkeys(range(len(waiting)), raised.kind)
            delays: list[float] = []
            again: list[int] = []
            for position, kind in answer.items():
                delay = retry_delay(kind, tries, self._clock.monotonic(), until, random.random())
                if delay is None:
                    failed[waiting[position]] = trouble or kind
                else:
                    again.append(waiting[position])
                    delays.append(delay)
            waiting = again
            if waiting:
                await self._clock.sleep(max(delays))
        return failed

    async def tried(self, call: Callable[[], Awaitable[R]]) -> R:
        """Carries out one request, and again if it was throttled or broke.

        Raises:
            Trouble: it failed in another way, or for too long.
        """
        until = self._clock.monotonic() + _PATIENCE_S
        tries = 0
        while True:
            tries += 1
            try:
                return await call()
            except Trouble as trouble:
                delay = retry_delay(trouble.kind, tries, self._clock.monotonic(), until, random.random())
                if delay is None:
                    raise
            await self._clock.sleep(delay)


def why(failed: Mapping[int, Failure]) -> str:
    """Returns the first trouble, or the kinds of trouble."""
    for one in failed.values():
        if isinstance(one, Trouble):
            return str(one)
    return ", ".join(sorted({str(one) for one in failed.values()}))
