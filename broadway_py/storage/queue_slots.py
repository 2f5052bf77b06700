"""Which reader may take which keys: keys map to a fixed number of slots, and each slot belongs to one reader.

Nothing here is stored. Every reader assigns the slots by the same rule to the same list of readers, inside the
transaction in which it takes messages. So all readers agree at any moment.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from typing import Final

__all__ = ["SLOTS", "slot_of", "slots_of"]

#: This number must never change, because slots are stored with the messages. Readers beyond this number get no messages
#: with keys.
SLOTS: Final = 64


def slot_of(key: str) -> int:
    """Returns the slot of *key*. It is the same in every process and version."""
    return zlib.crc32(key.encode()) % SLOTS


def slots_of(reader: int, readers: Sequence[int]) -> list[int]:
    """Returns the slots of *reader* when all of *readers* share them. They are none if it is not among *readers*."""
    return [slot for slot, owner in enumerate(_dealt(tuple(sorted(readers)))) if owner == reader]


@functools.lru_cache(maxsize=16)
def _dealt(readers: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the reader of each slot.

    Nobody has more than the even share, rounded up. Few slots move when a reader comes or goes.
    """
    if not readers:
        return ()
    most = -(-SLOTS // len(readers))
    load = dict.fromkeys(readers, 0)
    owners = []
    for slot in range(SLOTS):
        # Each slot has its own order of preference (rendezvous hashing). Full readers are skipped.
        owner = max((reader for reader in readers if load[reader] < most), key=lambda one: _affinity(slot, one))
        load[owner] += 1
        owners.append(owner)
    return tuple(owners)


def _affinity(slot: int, reader: int) -> int:
    return zlib.crc32(b"%d:%d" % (slot, reader))
