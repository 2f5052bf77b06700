"""Which deliveries of a channel are open, and how settled ones are told to the broker in the fewest words."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Literal, NamedTuple

__all__ = ["Settlement", "TagLedger"]


class Settlement(NamedTuple):
    """One method to be sent."""

    method: Literal["ack", "reject", "nack"]
    tag: int
    #: Of an ack: all open deliveries up to *tag*.
    multiple: bool = False
    #: Of a reject or a nack.
    requeue: bool = False


class TagLedger:
    """Bookkeeping for one channel, which numbers its deliveries from 1 upwards.

    A delivery is open from :meth:`delivered` until its settlement is taken with :meth:`take`. An ``ack`` for several
    never reaches past an open one, nor past a number that was not seen (somebody else fetched on this channel).
    """

    def __init__(self) -> None:
        # As a dict it is ordered by tag, for the broker counts upwards. Bounded by the prefetch.
        self._open: dict[int, None] = {}
        self._last = 0
        # Some of the open ones are not ours: somebody else fetched them.
        self._has_strangers = False
        self._acks: list[int] = []
        self._others: list[Settlement] = []

    @property
    def open(self) -> int:
        """How many deliveries are open."""
        return len(self._open)

    def delivered(self, tag: int) -> None:
        """The broker handed out *tag*."""
        for unseen in range(self._last + 1, tag):
            self._open[unseen] = None
            self._has_strangers = True
        self._open[tag] = None
        self._last = tag

    def delivered_run(self, first: int, last: int) -> None:
        """The broker handed out every tag from *first* to *last*."""
        self.delivered(first)
        self._open.update(dict.fromkeys(range(first + 1, last + 1)))
        self._last = last

    def ack(self, tag: int) -> bool:
        """*tag* was handled. False: it is not open."""
        if not self._close(tag):
            return False
        self._acks.append(tag)
        return True

    def ack_all(self, tags: Iterable[int]) -> list[bool]:
        """As :meth:`ack`, for each of *tags*."""
        still_open, noted = self._open, self._acks.append
        said: list[bool] = []
        for tag in tags:
            known = tag in still_open
            if known:
                del still_open[tag]
                noted(tag)
            said.append(known)
        return said

    def reject(self, tag: int, *, requeue: bool) -> bool:
        """*tag* failed. False: it is not open."""
        if not self._close(tag):
            return False
        self._others.append(Settlement("reject", tag, requeue=requeue))
        return True

    def release(self, tag: int) -> bool:
        """*tag* goes back without a decision. False: it is not open."""
        if not self._close(tag):
            return False
        self._others.append(Settlement("nack", tag, requeue=True))
        return True

    def release_all(self) -> None:
        """All that is open goes back without a decision; nothing does where some of it is somebody else's."""
        if not self._has_strangers:
            for tag in list(self._open):
                self.release(tag)

    def take(self) -> list[Settlement]:
        """What is to be sent now, in this order."""
        # What is not acked goes first: an ack for several may then pass over it.
        found, self._others = self._others, []
        acks, self._acks = self._acks, []
        acks.sort()
        barrier = next(iter(self._open), None)
        run = len(acks) if barrier is None else bisect_left(acks, barrier)
        if run > 1:
            found.append(Settlement("ack", acks[run - 1], multiple=True))
        else:
            run = 0
        found.extend(Settlement("ack", tag) for tag in acks[run:])
        return found

    def _close(self, tag: int) -> bool:
        if tag not in self._open:
            return False
        del self._open[tag]
        return True
