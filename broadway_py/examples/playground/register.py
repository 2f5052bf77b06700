"""A register of customers that is slow on purpose, as a service in a network is."""

from __future__ import annotations

import asyncio
import time
from typing import Final

__all__ = ["OWNERS", "get_owner", "get_owner_async"]

_NAMES: Final = (
    "Armani Bradly Carolina Danika Earl Fredy Guy Herminia Isaias Jimmie Kip Lillian Michaela "
    "Newell Ottis Pinkie Queen Rose Selmer Tyler Ulices Verda Waylon Xzavier Yesenia Zackery"
)

#: The customers, by the first letter of a booking.
OWNERS: Final = {name[0].lower(): name for name in _NAMES.split()}


def get_owner(booking_id: str, latency_ms: float = 0) -> str:
    """Returns the customer who has booked. Blocks for *latency_ms* milliseconds.

    Raises:
        KeyError: no customer has bookings that begin like this one.
    """
    if latency_ms:
        time.sleep(latency_ms / 1_000)
    return OWNERS[booking_id[:1]]


async def get_owner_async(booking_id: str, latency_ms: float = 0) -> str:
    """Does the same as :func:`get_owner`, and lets others go on while it waits."""
    if latency_ms:
        await asyncio.sleep(latency_ms / 1_000)
    return OWNERS[booking_id[:1]]
