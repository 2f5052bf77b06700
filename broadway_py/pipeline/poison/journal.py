"""The in-flight journal: which messages callbacks are at work on, in memory that outlives the process.

One anonymous file, made by the supervisor, inherited and mapped by every worker. Workers write it with plain stores
into memory, without asking the system for anything, so neither ``abort()`` nor SIGKILL can keep a word from it.

It holds a table of the messages that are suspected or convicted, written by the supervisor alone but for one word: a
worker marks a suspect as cleared. And it holds a region for each worker: pages of identities that are at work now,
one page for each stage. All numbers are 64 bits wide and stored whole.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from broadway_py._core.identity import IDENTITY_BYTES
from broadway_py.pipeline.poison.memory import MemoryMark

__all__ = [
    "CLEARED",
    "CONVICTED",
    "MOST_ENTRIES",
    "REPEATED",
    "SUSPECTED",
    "Entry",
    "Journal",
    "Page",
    "Region",
    "Trace",
]

_WORD: Final = 8
_ALL_ONES: Final = (1 << 64) - 1

#: What an entry of the table says of its message; 0: the entry is free.
SUSPECTED: Final = 1
CLEARED: Final = 2
CONVICTED: Final = 3
#: Convicted, and ``handle_failed`` must not be told of it either.
REPEATED: Final = 4

# The head: how often the table has changed, and how many of its entries have ever been used.
_CHANGES: Final = 0
_USED: Final = 1
_HEAD_BYTES: Final = 64

#: How many messages the table holds.
MOST_ENTRIES: Final = 4096
# An entry: identity, state, deaths, exit code of the last (as two's complement).
_ENTRY_BYTES: Final = IDENTITY_BYTES + 3 * _WORD
_ENTRY_STATE, _ENTRY_DEATHS, _ENTRY_EXIT = 2, 3, 4

# A region: its own head, a name, then pages one behind the other.
_REGION_BYTES: Final = 1 << 20
_STATE, _ALONE, _PEAK, _KILLS, _FULL, _NAME_BYTES, _BLAMED = range(7)
_NAME_AT: Final = 7 * _WORD
_NAME_MOST: Final = 456
_PAGES_AT: Final = 512
_RUNNING: Final = 1
_ENDED: Final = 2
# A page: how many identities it has room for, how many are at work, then the identities.
_PAGE_HEAD_BYTES: Final = 2 * _WORD
_LEAST_ROOM: Final = 16

#: Stands for a message that has no identity.
_UNNAMED: Final = bytes(IDENTITY_BYTES)


class Entry(NamedTuple):
    """What the table says of one message."""

    slot: int
    state: int
    deaths: int
    #: Of the process that died last, as ``subprocess`` gives it.
    exit: int


class Trace(NamedTuple):
    """What a worker's region says, read after its death."""

    #: The messages that callbacks were at work on.
    at_work: frozenset[bytes]
    #: More were at work than can be named.
    has_unnamed: bool
    #: It had been made sure that nothing else was at work.
    is_alone: bool
    #: The process left in order.
    has_ended: bool
    #: When the one alone began.
    memory: MemoryMark
    #: Who the one alone is, for the log.
    name: str


class Journal:
    """The whole file, mapped.

    Args:
        descriptor: of the file; closed by :meth:`close`.
        workers: how many have a region.
    """

    def __init__(self, descriptor: int, workers: int) -> None:
        self.descriptor = descriptor
        self.workers = workers
        size = _size(workers)
        self._map = mmap.mmap(descriptor, size)
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("Q")
        # Of the writer of the table: where each identity stands, and which slots are free, the last one first.
        self._slots: dict[bytes, int] = {}
        self._free = list(range(MOST_ENTRIES - 1, -1, -1))

    @classmethod
    def create(cls, workers: int) -> Journal:
        """A fresh one, all zeros."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("broadway-journal")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _size(workers))
        return cls(descriptor, workers)

    def close(self) -> None:
        """Let go of the file; the table is empty from now on."""
        self._slots.clear()
        self._words.release()
        self._bytes.release()
        self._map.close()
        os.close(self.descriptor)

    def region(self, index: int) -> Region:
        """The one of worker *index*."""
        return Region(self._bytes, self._words, _HEAD_BYTES + MOST_ENTRIES * _ENTRY_BYTES + index * _REGION_BYTES)

    @property
    def changes(self) -> int:
        """Another number after each change of the table that its readers must know."""
        return self._words[_CHANGES]

    def entries(self) -> dict[bytes, Entry]:
        """The table, by identity."""
        found: dict[bytes, Entry] = {}
        for slot in range(min(self._words[_USED], MOST_ENTRIES)):
            at = _entry_at(slot)
            state = self._words[at // _WORD + _ENTRY_STATE]
            if state:
                exit_code = self._words[at // _WORD + _ENTRY_EXIT]
                found[bytes(self._bytes[at : at + IDENTITY_BYTES])] = Entry(
                    slot, state, self._words[at // _WORD + _ENTRY_DEATHS], _signed(exit_code)
                )
        return found

    def state(self, slot: int) -> int:
        """What the table says now in *slot*."""
        return self._words[_entry_at(slot) // _WORD + _ENTRY_STATE]

    def put(self, identity: bytes, state: int, deaths: int, exit_code: int) -> None:
        """Write what is known of *identity*. Supervisor only, and no more than :data:`MOST_ENTRIES` at a time."""
        slot = self._slots.get(identity)
        if slot is None:
            slot = self._slots[identity] = self._free.pop()
            at = _entry_at(slot)
            self._bytes[at : at + IDENTITY_BYTES] = identity
        first = _entry_at(slot) // _WORD
        self._words[first + _ENTRY_DEATHS] = deaths
        self._words[first + _ENTRY_EXIT] = exit_code & _ALL_ONES
        self._words[first + _ENTRY_STATE] = state
        self._words[_USED] = max(self._words[_USED], slot + 1)
        self._words[_CHANGES] += 1

    def drop(self, identity: bytes) -> None:
        """Forget *identity*. Supervisor only."""
        slot = self._slots.pop(identity, None)
        if slot is not None:
            self._words[_entry_at(slot) // _WORD + _ENTRY_STATE] = 0
            self._free.append(slot)
            self._words[_CHANGES] += 1

    def cleared(self) -> list[bytes]:
        """The suspects that workers have cleared. Supervisor only."""
        return [identity for identity, slot in self._slots.items() if self.state(slot) == CLEARED]

    def clear(self, slot: int) -> None:
        """The suspect of *slot* was handled without a death; all workers see that at once."""
        word = _entry_at(slot) // _WORD + _ENTRY_STATE
        if self._words[word] == SUSPECTED:
            self._words[word] = CLEARED

    def is_at_work_elsewhere(self, identity: bytes, index: int) -> bool:
        """A worker other than *index* has it in hand, or had it when it died and the supervisor has not looked yet."""
        others = (self.region(other) for other in range(self.workers) if other != index)
        return any(identity in other.identities() for other in others)


class Region:
    """Of one worker: what it has at work.

    Args:
        data: the journal.
        words: the same as numbers.
        start: where the region begins, in bytes.
    """

    def __init__(self, data: memoryview, words: memoryview, start: int) -> None:
        self._bytes = data
        self._words = words
        self._start = start
        self._first = start // _WORD
        self._end = start + _REGION_BYTES
        self._free = start + _PAGES_AT

    # --- the worker's

    def begin(self) -> None:
        """The worker runs now."""
        self._words[self._first + _STATE] = _RUNNING

    def end(self) -> None:
        """The worker leaves in order: what it leaves behind has no say in that."""
        self._words[self._first + _STATE] = _ENDED

    def blame(self, identities: Sequence[bytes | None], *, alone: bool, name: str, memory: MemoryMark) -> None:
        """A stage has crashed for good with these in hand, and the process will end for that: all else has no say."""
        if self._words[self._first + _BLAMED]:
            return
        at, room = self.extent(len(identities))
        self.set_identities(at, b"".join(each or _UNNAMED for each in identities[:room]))
        self.set_count(at, len(identities))
        if alone:
            self.begin_alone(name, memory)
        else:
            self.end_alone()
        # Last: from here on nothing of it changes.
        self._words[self._first + _BLAMED] = at

    @property
    def is_blamed(self) -> bool:
        """True once :meth:`blame` was called."""
        return bool(self._words[self._first + _BLAMED])

    def begin_alone(self, name: str, memory: MemoryMark) -> None:
        """From now on what is at work is alone in the process; *name* says who it is."""
        if self.is_blamed:
            return
        text = name.encode(errors="replace")[:_NAME_MOST]
        at = self._start + _NAME_AT
        self._bytes[at : at + len(text)] = text
        self._words[self._first + _NAME_BYTES] = len(text)
        self._words[self._first + _PEAK] = memory.peak_kib
        self._words[self._first + _KILLS] = memory.kernel_kills
        self._words[self._first + _ALONE] = 1

    def end_alone(self) -> None:
        """Something else may be at work, too."""
        if self.is_blamed:
            return
        self._words[self._first + _ALONE] = 0

    def page(self) -> Page:
        """A new one."""
        return Page(self)

    def extent(self, room: int) -> tuple[int, int]:
        """Where there is room for as many identities, and for how many there is: none when the region is full."""
        at = self._free
        room = min(room, (self._end - at - _PAGE_HEAD_BYTES) // IDENTITY_BYTES)
        if room <= 0:
            self._words[self._first + _FULL] = 1
            return at, 0
        self._free = at + _PAGE_HEAD_BYTES + room * IDENTITY_BYTES
        # Who reads a death in here finds the end of the pages.
        self._words[at // _WORD + 1] = 0
        self._words[at // _WORD] = room
        return at, room

    def set_count(self, at: int, count: int) -> None:
        """So many of the page that begins *at* are at work."""
        self._words[at // _WORD + 1] = count

    def set_identities(self, at: int, identities: bytes) -> None:
        """Those of the page that begins *at*, from its first on."""
        first = at + _PAGE_HEAD_BYTES
        self._bytes[first : first + len(identities)] = identities

    # --- the supervisor's, and the other workers'

    def read(self) -> Trace:
        """What was going on. The sense of it may be torn while the worker lives."""
        words, first = self._words, self._first
        at_work = self.identities()
        length = min(words[first + _NAME_BYTES], _NAME_MOST)
        at = self._start + _NAME_AT
        return Trace(
            at_work=frozenset(at_work - {_UNNAMED}),
            has_unnamed=_UNNAMED in at_work or words[first + _FULL] == 1,
            is_alone=words[first + _ALONE] == 1,
            has_ended=words[first + _STATE] == _ENDED,
            memory=MemoryMark(words[first + _PEAK], words[first + _KILLS]),
            name=bytes(self._bytes[at : at + length]).decode(errors="replace"),
        )

    def identities(self) -> set[bytes]:
        """Those at work; among them the one that stands for whatever has no name."""
        found: set[bytes] = set()
        for at, room, count in self._pages():
            if count > room:
                found.add(_UNNAMED)
            first = at + _PAGE_HEAD_BYTES
            used = bytes(self._bytes[first : first + min(count, room) * IDENTITY_BYTES])
            found.update(used[place : place + IDENTITY_BYTES] for place in range(0, len(used), IDENTITY_BYTES))
        return found

    def _pages(self) -> Iterator[tuple[int, int, int]]:
        at = self._words[self._first + _BLAMED] or self._start + _PAGES_AT
        while at + _PAGE_HEAD_BYTES <= self._end:
            room, count = self._words[at // _WORD], self._words[at // _WORD + 1]
            following = at + _PAGE_HEAD_BYTES + room * IDENTITY_BYTES
            if room == 0 or following > self._end:
                return
            yield at, room, count
            if self.is_blamed:
                return
            at = following

    def reset(self) -> None:
        """Make room for the next worker."""
        # Also what stands before the page that is blamed.
        self._words[self._first + _BLAMED] = 0
        end = self._start + _PAGES_AT
        for at, room, _ in self._pages():
            end = at + _PAGE_HEAD_BYTES + room * IDENTITY_BYTES
        self._bytes[self._start : end] = bytes(end - self._start)


class Page:
    """Of one stage: the messages that its callback is at work on.

    Args:
        region: where it takes room from, more when more are at work.
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self._at, self._room = -1, 0

    def set(self, identities: Sequence[bytes | None]) -> None:
        """The callback is called with these; None stands for one without an identity."""
        if len(identities) > self._room:
            self._grow(len(identities))
        if self._at >= 0:
            self._region.set_count(self._at, 0)
            self._region.set_identities(self._at, b"".join(each or _UNNAMED for each in identities[: self._room]))
            self._region.set_count(self._at, len(identities))

    def set_one(self, identity: bytes | None) -> None:
        """The callback is called with this one."""
        at = self._at
        if at < 0:
            self._grow(1)
            at = self._at
        if at >= 0:
            region = self._region
            region.set_identities(at, identity or _UNNAMED)
            region.set_count(at, 1)

    def clear(self) -> None:
        """The callback has returned."""
        if self._at >= 0:
            self._region.set_count(self._at, 0)

    def _grow(self, count: int) -> None:
        room = _LEAST_ROOM
        while room < count:
            room *= 2
        at, got = self._region.extent(room)
        if got > self._room:
            # The smaller place stays unused: pages are few, and grow seldom.
            self.clear()
            self._at, self._room = at, got


def _size(workers: int) -> int:
    return _HEAD_BYTES + MOST_ENTRIES * _ENTRY_BYTES + workers * _REGION_BYTES


def _entry_at(slot: int) -> int:
    return _HEAD_BYTES + slot * _ENTRY_BYTES


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word
