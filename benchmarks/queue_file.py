"""Where the queues of the embedded rows lie, and what is in them: the same for ours, the limit and the peers.

Only the standard library is imported here: peers run this module in environments of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["BODY_BYTES", "body", "directory", "identity"]

BODY_BYTES: Final = 256
_ID_DIGITS: Final = 10
# Beside the code and not in /tmp, which may be memory: a commit must wait for a disk.
_CACHE: Final = Path(__file__).parent.parent / ".cache"


def body(number: int) -> bytes:
    """The message with this id."""
    return b"%010d" % number + b"." * (BODY_BYTES - _ID_DIGITS)


def identity(data: bytes | str) -> int:
    """The id in a message of :func:`body`."""
    return int(data[:_ID_DIGITS])


@contextmanager
def directory() -> Iterator[Path]:
    """A directory on a disk, gone afterwards."""
    _CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="queue-", dir=_CACHE) as made:
        yield Path(made)
