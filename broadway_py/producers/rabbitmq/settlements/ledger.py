"""Tracks the open deliveries of a channel, and settles them with the fewest frames."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Literal, NamedTuple

__all__ = ["Settlement", "TagLedger"]


class Settlement(NamedTuple):
    """One method to send."""

    method: Literal["ack", "reject", "nack"]
    tag: int
    #: For an ack: it covers all open deliveries up to *tag*.
    multiple: bool = False
    #: For a reject or a nack.
    requeue: bool = False


class TagLedger:
    """Tracks the deliveries of one channel. The channel numbers its deliveries upwards from 1.

    A delivery is open from :meth:`delivered` until it is settled. An ``ack`` for several deliveries never covers an
    open one, nor a number that was not seen (somebody else fetched it on this channel).
    """

    def __init__(self) -> None:
        # A dict keeps them ordered by tag, because the broker counts upwards. The prefetch limits its size.
        self._open: dict[int, None] = {}
        self._last = 0
        # Whether some open deliveries are not ours, because somebody else fetched them.
        self._has_strangers = False
        self._acks: list[int] = []
        self._others: list[Settlement] = []

    @property
    def open(self) -> int:
        """Returns how many deliveries are open."""
        return len(self._open)

    def delivered(self, tag: int) -> None:
        """Notes that the broker handed out *tag*."""
        for unseen in range(self._last + 1, tag):
            self._open[unseen] = None
            self._has_strangers = True
        self._open[tag] = None
        self._last = tag

    def delivered_run(self, first: int, last: int) -> None:
        """Notes that the broker handed out every tag from *first* to *last*."""
        self.delivered(first)
        self._open.update(dict.fromkeys(range(first + 1, last + 1)))
        self._last = last

    def ack(self, tag: int) -> bool:
        """Notes that *tag* was handled. Returns False if it is not open."""
        if not self._close(tag):
            return False
        self._acks.append(tag)
        return True

    def ack_all(self, tags: Iterable[int]) -> list[bool]:
        """Works like :meth:`ack`, for each of *tags*."""
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
        """Notes that *tag* failed. Returns False if it is not open."""
        if not self._close(tag):
            return False
        self._others.append(Settlement("reject", tag, requeue=requeue))
        return True

    def release(self, tag: int) -> bool:
        """Notes that *tag* goes back without a result. Returns False if it is not open."""
        if not self._close(tag):
            return False
        self._others.append(Settlement("nack", tag, requeue=True))
        return True

    def release_all(self) -> None:
        """Gives back every open delivery without a result. Does nothing if some of them are not ours."""
        if not self._has_strangers:
            for tag in list(self._open):
                self.release(tag)

    def take(self) -> list[Settlement]:
        """Returns what is to be sent now, in this order."""
        # Rejects and nacks go first, so that an ack for several deliveries may cover their tags.
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
