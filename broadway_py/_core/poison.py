"""Which message kills the processes that handle it: suspicion at the first death, conviction at the second, alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

__all__ = ["FROM_OUTSIDE", "Findings", "Suspects"]

#: Deaths alone that convict a message when each could as well be the work of somebody outside.
FROM_OUTSIDE: Final = 3


@dataclass(slots=True)
class _Record:
    deaths: int = 0
    alone: int = 0


@dataclass(slots=True)
class Findings:
    """What one death has changed."""

    #: Suspected from now on, or still: they are to run alone.
    suspects: list[bytes] = field(default_factory=list)
    #: To be given to ``handle_message`` no more.
    convicted: bytes | None = None
    #: Convicted before, and at work again, in ``handle_failed``: not to be given even to that.
    repeated: list[bytes] = field(default_factory=list)
    #: How many processes have died with the one that is convicted, or repeated.
    deaths: int = 0
    #: The oldest, to make room: neither suspected nor convicted any more.
    forgotten: list[bytes] = field(default_factory=list)


class Suspects:
    """Draws conclusions from deaths.

    A message is *suspected* when callbacks were at work on it while its process died. It is *convicted* when that
    happens again while it is alone, with nothing else at work in the process: one innocent death of a crowd and one
    coincidence are needed to convict wrongly, and a death that may have come from outside is not counted before the
    :data:`FROM_OUTSIDE`-th alone. One that was handled without a death is *cleared*: as if nothing had been.

    Args:
        most: how many are remembered, of the suspected and of the convicted each; then the oldest are forgotten.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._records: dict[bytes, _Record] = {}
        self._convicted: dict[bytes, _Record] = {}

    @property
    def suspected(self) -> Collection[bytes]:
        """Those that are to run alone."""
        return self._records.keys()

    @property
    def convicted(self) -> Collection[bytes]:
        """Those that are to run no more."""
        return self._convicted.keys()

    def died(self, at_work: Collection[bytes], *, alone: bool, by_itself: bool) -> Findings:
        """A process died while callbacks were at work on *at_work*.

        Args:
            at_work: empty when none were; then nobody is suspected.
            alone: there was one, and it had been made sure that nothing else was at work.
            by_itself: the process ended by what it did: a signal that nobody sends, an exit, too much memory.
        """
        findings = Findings()
        for one in at_work:
            if one in self._convicted:
                self._convicted[one].deaths += 1
                findings.repeated.append(one)
                findings.deaths = self._convicted[one].deaths
                continue
            # Taken out and put back: the last accused is the last to be forgotten.
            record = self._records.pop(one, None) or _Record()
            record.deaths += 1
            record.alone += alone
            if alone and record.deaths > 1 and (by_itself or record.alone >= FROM_OUTSIDE):
                self._convicted[one] = record
                findings.convicted, findings.deaths = one, record.deaths
            else:
                self._records[one] = record
                findings.suspects.append(one)
        findings.forgotten = [*_cut(self._records, self._most), *_cut(self._convicted, self._most)]
        findings.suspects = [one for one in findings.suspects if one in self._records]
        return findings

    def clear(self, one: bytes) -> None:
        """It was handled without a death. Those that are convicted stay so."""
        self._records.pop(one, None)


def _cut(records: dict[bytes, _Record], most: int) -> list[bytes]:
    """Take out the oldest beyond *most*; those."""
    forgotten = list(records)[: max(0, len(records) - most)]
    for one in forgotten:
        del records[one]
    return forgotten
