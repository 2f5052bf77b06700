"""Measures for how long the copies of a producer have been reading, where no watermark follows them."""

from __future__ import annotations

from broadway_py._core.aggregation.reader import Reader

__all__ = ["ReadTime"]


class ReadTime:
    """The seconds in which a copy of one producer was reading.

    In a pipeline with aggregators, ``Progress`` counts them.

    Args:
        copies: how many copies the producer has.
    """

    def __init__(self, copies: int) -> None:
        #: The copies, by their index.
        self.readers = [Reader(self) for _ in range(copies)]
        self._reading = 0
        self._since = 0.0
        self._seconds = 0.0

    @property
    def has_ended(self) -> bool:
        """True if all copies have ended: nothing more comes."""
        return all(reader.has_ended for reader in self.readers)

    def active(self, now: float) -> float:
        """Returns the seconds in which a copy was reading."""
        return self._seconds + (now - self._since if self._reading else 0.0)

    def note_reading(self, change: int, now: float) -> None:
        """Notes that one copy more or fewer is reading."""
        self._seconds = self.active(now)
        self._since = now
        self._reading += change

    def stand(self, now: float, returns_within_s: float) -> None:
        """Does nothing: what comes back later is recognised all the same."""

    def tell(self) -> None:
        """Does nothing: nobody follows."""

    def tell_the_free(self) -> None:
        """Does nothing: nobody follows."""
