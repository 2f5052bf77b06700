"""The routing key by which a message with a key is published."""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["routing_key_of"]

#: The most bytes of a routing key.
_LONGEST: Final = 255


def routing_key_of(key: str | None) -> str:
    """Returns *key* as a routing key: as it is, or a digest of it if it is too long; None: an empty one."""
    encoded = (key or "").encode()
    if len(encoded) <= _LONGEST:
        return key or ""
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()
