"""The in-flight journal: the messages that callbacks are handling, in memory that outlives the process.

It is one anonymous file, made by the supervisor, inherited and mapped by every worker. Workers write with plain memory
stores, without system calls, so what was written survives ``abort()`` and SIGKILL.

The file holds a table of suspected and convicted messages. Only the supervisor writes the table, with one exception: a
worker marks a suspect as cleared. The file also holds a region for each worker: pages with the identities of messages
that are being handled, one page for each stage. All numbers are 64 bits wide and written in one store.
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

#: The states of an entry in the table; 0 means that the entry is free.
SUSPECTED: Final = 1
CLEARED: Final = 2
CONVICTED: Final = 3
#: The message is convicted, and ``handle_failed`` must not get it either.
REPEATED: Final = 4

# The head of the file: how often the table has changed, and how many of its entries were ever used.
_CHANGES: Final = 0
_USED: Final = 1
_HEAD_BYTES: Final = 64

#: The table holds at most this many messages.
MOST_ENTRIES: Final = 4096
# An entry: identity, state, deaths, exit code of the last death (as two's complement).
_ENTRY_BYTES: Final = IDENTITY_BYTES + 3 * _WORD
_ENTRY_STATE, _ENTRY_DEATHS, _ENTRY_EXIT = 2, 3, 4

# A region: its own head, a name, then pages one after the other.
_REGION_BYTES: Final = 1 << 20
_STATE, _ALONE, _PEAK, _KILLS, _FULL, _NAME_BYTES, _BLAMED = range(7)
_NAME_AT: Final = 7 * _WORD
_NAME_MOST: Final = 456
_PAGES_AT: Final = 512
_RUNNING: Final = 1
_ENDED: Final = 2
# A page: how many identities it has room for, how many are in use, then the identities.
_PAGE_HEAD_BYTES: Final = 2 * _WORD
_LEAST_ROOM: Final = 16

#: Stands for a message that has no identity.
_UNNAMED: Final = bytes(IDENTITY_BYTES)


class Entry(NamedTuple):
    """The entry of the table for one message."""

    slot: int
    state: int
    deaths: int
    #: The exit code of the process that died last, as ``subprocess`` gives it.
    exit: int


class Trace(NamedTuple):
    """The content of a worker's region, read after the worker's death."""

    #: The messages that callbacks were handling.
    at_work: frozenset[bytes]
    #: True if messages without an identity in the region were being handled too.
    has_unnamed: bool
    #: True if it was made sure that no other message was being handled.
    is_alone: bool
    #: True if the process ended in order.
    has_ended: bool
    #: The memory figures when the message that ran alone began.
    memory: MemoryMark
    #: The name of the message that ran alone, for the log.
    name: str


class Journal:
    """The whole file, mapped into memory.

    Args:
        descriptor: the file descriptor; :meth:`close` closes it.
        workers: how many workers have a region.
    """

    def __init__(self, descriptor: int, workers: int) -> None:
        self.descriptor = descriptor
        self.workers = workers
        size = _size(workers)
        self._map = mmap.mmap(descriptor, size)
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("Q")
        # Only used by the supervisor: the slot of each identity, and the free slots, taken from the end.
        self._slots: dict[bytes, int] = {}
        self._free = list(range(MOST_ENTRIES - 1, -1, -1))

    @classmethod
    def create(cls, workers: int) -> Journal:
        """Returns a new journal, all zeros."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("broadway-journal")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _size(workers))
        return cls(descriptor, workers)

    def grow(self, workers: int) -> None:
        """Make the file larger, if it has regions for fewer than *workers*. Processes that have mapped it go on."""
        if workers <= self.workers:
            return
        os.ftruncate(self.descriptor, _size(workers))
        larger = mmap.mmap(self.descriptor, _size(workers))
        self._words.release()
        self._bytes.release()
        self._map.close()
        self._map = larger
        self._bytes = memoryview(larger)
        self._words = self._bytes.cast("Q")
        self.workers = workers

    def close(self) -> None:
        """Unmap and close the file. The table is empty from now on."""
        self._slots.clear()
        self._words.release()
        self._bytes.release()
        self._map.close()
        os.close(self.descriptor)

    def region(self, index: int) -> Region:
        """Returns the region of worker *index*."""
        return Region(self._bytes, self._words, _HEAD_BYTES + MOST_ENTRIES * _ENTRY_BYTES + index * _REGION_BYTES)

    @property
    def changes(self) -> int:
        """Returns a number that is different after each change of the table that readers must see."""
        return self._words[_CHANGES]

    def entries(self) -> dict[bytes, Entry]:
        """Returns the table by identity."""
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
        """Returns the current state in *slot* of the table."""
        return self._words[_entry_at(slot) // _WORD + _ENTRY_STATE]

    def put(self, identity: bytes, state: int, deaths: int, exit_code: int) -> None:
        """Write the entry of *identity*. Only the supervisor may call this.

        There can be at most :data:`MOST_ENTRIES` entries at a time.
        """
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
        """Remove the entry of *identity*. Only the supervisor may call this."""
        slot = self._slots.pop(identity, None)
        if slot is not None:
            self._words[_entry_at(slot) // _WORD + _ENTRY_STATE] = 0
            self._free.append(slot)
            self._words[_CHANGES] += 1

    def cleared(self) -> list[bytes]:
        """Returns the suspects that workers have cleared. Only the supervisor may call this."""
        return [identity for identity, slot in self._slots.items() if self.state(slot) == CLEARED]

    def clear(self, slot: int) -> None:
        """Mark the suspect in *slot* as cleared: it was handled without a death. All workers see this at once."""
        word = _entry_at(slot) // _WORD + _ENTRY_STATE
        if self._words[word] == SUSPECTED:
            self._words[word] = CLEARED

    def is_at_work_elsewhere(self, identity: bytes, index: int) -> bool:
        """Returns True if a worker other than *index* is handling the message.

        Also returns True if a worker was handling it when it died and the supervisor has not read its region yet.
        """
        others = (self.region(other) for other in range(self.workers) if other != index)
        return any(identity in other.identities() for other in others)


class Region:
    """The region of one worker: the messages that it is handling.

    Args:
        data: the journal as bytes.
        words: the journal as 64-bit numbers.
        start: where the region begins, in bytes.
    """

    def __init__(self, data: memoryview, words: memoryview, start: int) -> None:
        self._bytes = data
        self._words = words
        self._start = start
        self._first = start // _WORD
        self._end = start + _REGION_BYTES
        self._free = start + _PAGES_AT

    # --- for the worker

    def begin(self) -> None:
        """Note that the worker runs."""
        self._words[self._first + _STATE] = _RUNNING

    def end(self) -> None:
        """Note that the worker ends in order, so that messages still in the region are not suspected."""
        self._words[self._first + _STATE] = _ENDED

    def blame(self, identities: Sequence[bytes | None], *, alone: bool, name: str, memory: MemoryMark) -> None:
        """Blame *identities* for the end of the process: a stage crashed for good while it handled them.

        From now on the region shows only these. Later calls do nothing.
        """
        if self._words[self._first + _BLAMED]:
            return
        at, room = self.extent(len(identities))
        self.set_identities(at, b"".join(each or _UNNAMED for each in identities[:room]))
        self.set_count(at, len(identities))
        if alone:
            self.begin_alone(name, memory)
        else:
            self.end_alone()
        # Written last: from here on the region does not change.
        self._words[self._first + _BLAMED] = at

    @property
    def is_blamed(self) -> bool:
        """Returns True once :meth:`blame` was called."""
        return bool(self._words[self._first + _BLAMED])

    def begin_alone(self, name: str, memory: MemoryMark) -> None:
        """Note that the message called *name* now runs alone in the process."""
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
        """Note that other messages may be handled at the same time again."""
        if self.is_blamed:
            return
        self._words[self._first + _ALONE] = 0

    def page(self) -> Page:
        """Returns a new page."""
        return Page(self)

    def extent(self, room: int) -> tuple[int, int]:
        """Reserve room for *room* identities. Returns where it is, and for how many there is room.

        There is room for 0 if the region is full.
        """
        at = self._free
        room = min(room, (self._end - at - _PAGE_HEAD_BYTES) // IDENTITY_BYTES)
        if room <= 0:
            self._words[self._first + _FULL] = 1
            return at, 0
        self._free = at + _PAGE_HEAD_BYTES + room * IDENTITY_BYTES
        # The count is written first, so that a reader after a death here still finds the end of the pages.
        self._words[at // _WORD + 1] = 0
        self._words[at // _WORD] = room
        return at, room

    def set_count(self, at: int, count: int) -> None:
        """Set how many identities of the page that begins *at* are in use."""
        self._words[at // _WORD + 1] = count

    def set_identities(self, at: int, identities: bytes) -> None:
        """Write *identities* into the page that begins *at*, from its first place on."""
        first = at + _PAGE_HEAD_BYTES
        self._bytes[first : first + len(identities)] = identities

    # --- for the supervisor and the other workers

    def read(self) -> Trace:
        """Returns the content of the region. It may be inconsistent while the worker still runs."""
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
        """Returns the identities in use, with a special one for messages that have no identity in the region."""
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
        """Empty the region for the next worker."""
        # Unset first, so that the pages before the blamed page are emptied too.
        self._words[self._first + _BLAMED] = 0
        end = self._start + _PAGES_AT
        for at, room, _ in self._pages():
            end = at + _PAGE_HEAD_BYTES + room * IDENTITY_BYTES
        self._bytes[self._start : end] = bytes(end - self._start)


class Page:
    """The page of one stage: the messages that its callback is handling.

    Args:
        region: the region that the page takes its room from. The page takes more room if it needs more.
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self._at, self._room = -1, 0

    def set(self, identities: Sequence[bytes | None]) -> None:
        """Note that the callback is called with these messages; None stands for one without an identity."""
        if len(identities) > self._room:
            self._grow(len(identities))
        if self._at >= 0:
            self._region.set_count(self._at, 0)
            self._region.set_identities(self._at, b"".join(each or _UNNAMED for each in identities[: self._room]))
            self._region.set_count(self._at, len(identities))

    def set_one(self, identity: bytes | None) -> None:
        """Note that the callback is called with this message."""
        at = self._at
        if at < 0:
            self._grow(1)
            at = self._at
        if at >= 0:
            region = self._region
            region.set_identities(at, identity or _UNNAMED)
            region.set_count(at, 1)

    def clear(self) -> None:
        """Note that the callback has returned."""
        if self._at >= 0:
            self._region.set_count(self._at, 0)

    def _grow(self, count: int) -> None:
        room = _LEAST_ROOM
        while room < count:
            room *= 2
        at, got = self._region.extent(room)
        if got > self._room:
            # The smaller place stays unused: there are few pages, and they seldom grow.
            self.clear()
            self._at, self._room = at, got


def _size(workers: int) -> int:
    return _HEAD_BYTES + MOST_ENTRIES * _ENTRY_BYTES + workers * _REGION_BYTES


def _entry_at(slot: int) -> int:
    return _HEAD_BYTES + slot * _ENTRY_BYTES


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word
