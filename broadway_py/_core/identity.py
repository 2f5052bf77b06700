"""Which message it is, over deliveries and over processes."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from broadway_py.message import Message

__all__ = ["IDENTITY_BYTES", "identity_of", "name_of"]

#: Length of an identity.
IDENTITY_BYTES: Final = 16

#: Of a message that has an id, this much of the payload counts: ids are not always unique, and payloads can be large.
_HEAD_BYTES: Final = 1024


def name_of(message: Message[Any]) -> str | None:
    """What its source calls *message*; whatever a handler may have done to its metadata."""
    name = message._named()
    return str(name) if isinstance(name, str | int | bytes) else None


def identity_of(message: Message[Any], pipeline: str) -> bytes | None:
    """The same bytes for each delivery of *message* to the pipeline of that name, in whatever process.

    Made of the producer's name, the source's id (``metadata["message_id"]``), the size and the beginning of the
    payload; without an id, of the whole payload. None for what has neither an id nor a payload of bytes or text.
    """
    name = name_of(message)
    raw = getattr(message, "raw", None)  # a transformer may have deleted it
    if isinstance(raw, bytes):
        payload = raw
    elif isinstance(raw, str):
        payload = raw.encode(errors="surrogatepass")
    elif isinstance(raw, bytearray | memoryview):
        payload = bytes(raw)
    elif name is None:
        return None
    else:
        payload = b""
    known = b"-"
    if name is not None:
        known = b"+" + name.encode(errors="surrogatepass")
        payload = payload[:_HEAD_BYTES]
    whole = b"%b%b\0%d\0%b" % (_origin(pipeline, message.producer), known, message._size, payload)
    return blake2b(whole, digest_size=IDENTITY_BYTES).digest()


@lru_cache(maxsize=256)
def _origin(pipeline: str, producer: str | None) -> bytes:
    return f"{pipeline}\0{producer}\0".encode(errors="surrogatepass")
