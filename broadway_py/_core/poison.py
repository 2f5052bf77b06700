"""Finds the message that kills the processes that handle it.

A message is suspected at the first death and convicted at the second one, if it was alone then.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

__all__ = ["FROM_OUTSIDE", "Findings", "Suspects"]

#: How many deaths alone convict a message if each of them could have been caused from outside.
FROM_OUTSIDE: Final = 3


@dataclass(slots=True)
class _Record:
    deaths: int = 0
    alone: int = 0


@dataclass(slots=True)
class Findings:
    """The changes that follow from one death."""

    #: The messages that are now suspected. They must run alone.
    suspects: list[bytes] = field(default_factory=list)
    #: The message that must not be given to ``handle_message`` again.
    convicted: bytes | None = None
    #: Messages that were convicted before and were being handled again, in ``handle_failed``. They must not be given to
    #: that either.
    repeated: list[bytes] = field(default_factory=list)
    #: How many processes have died with the message that is convicted or repeated.
    deaths: int = 0
    #: The oldest messages, removed to make room: no longer suspected or convicted.
    forgotten: list[bytes] = field(default_factory=list)


class Suspects:
    """Decides from the deaths of processes which messages are suspected and convicted.

    A message is *suspected* if callbacks were working on it when its process died. It is *convicted* if this happens
    again while it is alone, that is, while nothing else runs in the process. So a wrong conviction needs two
    coincidences: one death among other messages and one alone. Deaths that may have been caused from outside convict
    only at the :data:`FROM_OUTSIDE`-th death alone. A message that was handled without a death is *cleared*, as if
    nothing had happened.

    Args:
        most: how many suspected and how many convicted messages are remembered. Then the oldest are forgotten.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._records: dict[bytes, _Record] = {}
        self._convicted: dict[bytes, _Record] = {}

    @property
    def suspected(self) -> Collection[bytes]:
        """The messages that must run alone."""
        return self._records.keys()

    @property
    def convicted(self) -> Collection[bytes]:
        """The messages that must not run again."""
        return self._convicted.keys()

    def died(self, at_work: Collection[bytes], *, alone: bool, by_itself: bool) -> Findings:
        """Notes that a process died while callbacks were working on *at_work*. Returns what changes.

        Args:
            at_work: the messages; if it is empty, no message is suspected.
            alone: there was one message, and the caller made sure that nothing else was running.
            by_itself: the process itself caused its end: a signal that nobody sends, an exit, too much memory.
        """
        findings = Findings()
        for one in at_work:
            if one in self._convicted:
                self._convicted[one].deaths += 1
                findings.repeated.append(one)
                findings.deaths = self._convicted[one].deaths
                continue
            # Removed and inserted again: the message that was suspected last is the last to be forgotten.
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
        """Notes that the message was handled without a death. A convicted message stays convicted."""
        self._records.pop(one, None)


def _cut(records: dict[bytes, _Record], most: int) -> list[bytes]:
    """Removes the oldest records beyond *most* and returns their names."""
    forgotten = list(records)[: max(0, len(records) - most)]
    for one in forgotten:
        del records[one]
    return forgotten
