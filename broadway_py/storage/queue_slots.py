"""Which reader may take which keys: keys fall into a fixed number of slots, and slots are dealt to the readers.

Nothing here is stored. Every reader deals the slots by the same rule over the same list of readers, inside the
transaction in which it takes; so at any moment all agree.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from typing import Final

__all__ = ["SLOTS", "slot_of", "slots_of"]

#: Never changed: slots are stored with the messages. More readers than this have nothing of messages with keys.
SLOTS: Final = 64


def slot_of(key: str) -> int:
    """The slot of *key*, the same in every process and version."""
    return zlib.crc32(key.encode()) % SLOTS


def slots_of(reader: int, readers: Sequence[int]) -> list[int]:
    """The slots of *reader*, when all of *readers* share them; none if it is not among them."""
    return [slot for slot, owner in enumerate(_dealt(tuple(sorted(readers)))) if owner == reader]


@functools.lru_cache(maxsize=16)
def _dealt(readers: tuple[int, ...]) -> tuple[int, ...]:
    """Slot -> reader. Nobody has more than one above the even share, and few slots move when one comes or goes."""
    if not readers:
        return ()
    most = -(-SLOTS // len(readers))
    load = dict.fromkeys(readers, 0)
    owners = []
    for slot in range(SLOTS):
        # Each slot has its own order of preference (rendezvous hashing), in which full readers are passed over.
        owner = max((reader for reader in readers if load[reader] < most), key=lambda one: _affinity(slot, one))
        load[owner] += 1
        owners.append(owner)
    return tuple(owners)


def _affinity(slot: int, reader: int) -> int:
    return zlib.crc32(b"%d:%d" % (slot, reader))
