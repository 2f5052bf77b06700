"""Finds deliveries that came back so often that the broker would soon drop them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from broadway_py.clock import Clock
from broadway_py.log import logger
from broadway_py.producers.rabbitmq.deliveries.lazy_message import times_back
from broadway_py.producers.rabbitmq.deliveries.message import Waiting
from broadway_py.producers.rabbitmq.topology.delivery_limits import is_near

__all__ = ["LimitWatch"]

log = logger("broadway_py.producers.rabbitmq")

#: Seconds between two log lines about messages near their delivery limit.
_SILENCE_S: Final = 60.0


class LimitWatch:
    """Finds messages near their delivery limit. Logs them at intervals, because they may be all of a queue."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: Queue -> the number of returns after which the broker drops a message. A queue without a limit is left out.
        self.limits: dict[str, int] = {}
        # How many messages were not logged yet, and the time of the last log line.
        self._untold = 0
        self._told_at: float | None = None

    def near(self, deliveries: Sequence[Waiting], origins: Mapping[str, str], where: str) -> list[Waiting]:
        """Returns those of *deliveries* that are near the limit of their queue.

        Args:
            deliveries: what has come.
            origins: the queue of each consumer.
            where: the broker's address as it may be shown.
        """
        near = [one for one in deliveries if one[1] and self._is_near(one, origins)]
        if near:
            self._tell_of(near, origins[near[0][4]], where)
        return near

    def _is_near(self, one: Waiting, origins: Mapping[str, str]) -> bool:
        limit = self.limits.get(origins.get(one[4], ""))
        return limit is not None and is_near(times_back(one), limit)

    def _tell_of(self, near: Sequence[Waiting], queue: str, where: str) -> None:
        self._untold += len(near)
        now = self._clock.monotonic()
        if self._told_at is not None and now - self._told_at < _SILENCE_S:
            return
        log.warning(
            "messages came back to their queue so often that the broker would soon drop them; they go to the dead "
            "letters",
            queue=queue,
            messages=self._untold,
            limit=self.limits[queue],
            broker=where,
        )
        self._untold, self._told_at = 0, now
