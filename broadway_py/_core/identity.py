"""Identifies a message: for people, and over all its deliveries and over processes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2s
from typing import Any, Final

from broadway_py.error_text import clipped
from broadway_py.foreign import foreign_errors
from broadway_py.message import Message

__all__ = [
    "IDENTITY_BYTES",
    "child_identity",
    "given_identity",
    "id_of",
    "identities_by_id",
    "identity_by_id",
    "identity_of",
]

#: The length of an identity in bytes.
IDENTITY_BYTES: Final = 16

#: How many bytes of the payload count for a message with an id. An id is not always unique, and a payload can be large.
_HEAD_BYTES: Final = 1024

#: Common types of payloads that are neither bytes nor text.
_WITHOUT_HEAD: Final[frozenset[type]] = frozenset({dict, list, tuple, int, float, type(None)})

#: The most characters of an id in a log line.
_MOST_SHOWN: Final = 200


def id_of(message: Message[Any]) -> str | None:
    """Returns ``message.id`` for a log line, cut if it is long. None also if it cannot be read."""
    try:
        name = message.id
    except foreign_errors():
        return None  # a handler may have replaced the metadata by any object
    return name if name is None else clipped(name, _MOST_SHOWN)


def identity_of(message: Message[Any], pipeline: str) -> bytes | None:
    """Returns the same bytes for each delivery of *message* to the pipeline of that name, in every process.

    The bytes are made from the names of the pipeline and the producer, the source's id (``metadata["message_id"]``),
    the size and the beginning of the payload; without an id, from the whole payload. Returns None if the message has no
    id and its payload is not bytes or text.
    """
    named = message._named()
    # The text of another object may differ in each process.
    name = str(named) if isinstance(named, str | int | bytes) else None
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
    return blake2s(whole, digest_size=IDENTITY_BYTES).digest()


def identity_by_id(message: Message[Any], producer: str | None) -> bytes | None:
    """Returns the same bytes for each delivery of *message* by *producer*, in every process. None: it has no id.

    The bytes are made from the name of the producer, the source's id (``metadata["message_id"]``), the size and the
    beginning of the payload. They are never made from a payload alone: two orders can look the same. It never raises.
    """
    return identities_by_id((message,), producer)[0]


def identities_by_id(messages: Iterable[Message[Any]], producer: str | None) -> list[bytes | None]:
    """Returns :func:`identity_by_id` of each of *messages*, which all came from *producer*."""
    # This runs for each message. A copy of a digest that was begun takes two thirds of the time of a new one. BLAKE2s
    # takes less time than BLAKE2b for so few bytes.
    begun = _begun(producer).copy
    size, size_text = 0, "0\0"
    identities: list[bytes | None] = []
    for message in messages:
        try:
            # Others may decode it only when it is read.
            metadata: Any = message.metadata if type(message) is Message else None
        except AttributeError:
            metadata = None  # a handler has deleted it
        # Mostly it is a plain dict. Then this saves a call.
        name = metadata.get("message_id") if type(metadata) is dict else message._named()
        if type(name) is not str:
            name = _text_of_id(name)
        if not name:
            identities.append(None)
            continue
        if message._size != size:
            size = message._size
            size_text = f"{size}\0"
        text = f"{size_text}{name}\0"
        try:
            known = text.encode()
        except UnicodeEncodeError:
            known = text.encode(errors="surrogatepass")
        try:
            raw = message.raw
        except AttributeError:
            raw = None  # a transformer has deleted it
        digest = begun()
        if type(raw) is bytes:
            digest.update(known + raw[:_HEAD_BYTES])
        elif type(raw) in _WITHOUT_HEAD:
            digest.update(known)
        else:
            digest.update(known + _head_of(raw))
        identities.append(digest.digest())
    return identities


def child_identity(parent: bytes, number: int) -> bytes:
    """Returns the identity of the child with this *number* of the message with the identity *parent*."""
    return blake2s(b"%b%d" % (parent, number), digest_size=IDENTITY_BYTES).digest()


def given_identity(given: str | bytes) -> bytes | None:
    """Returns the identity for what a user has *given* as one. None: it is empty."""
    if not given:
        return None
    # Text and bytes are never the same, whatever they hold.
    data = b"t" + given.encode(errors="surrogatepass") if isinstance(given, str) else b"b" + given
    return blake2s(data, digest_size=IDENTITY_BYTES).digest()


def _text_of_id(name: object) -> str | None:
    """Returns *name* as text. None: it is an object whose text may differ in each process."""
    if isinstance(name, str):
        return str.__str__(name)
    if isinstance(name, int):
        return int.__format__(name, "x")  # Python refuses to write a very large number in decimal
    return bytes.hex(name) if isinstance(name, bytes) else None


def _head_of(raw: object) -> bytes:
    try:
        if isinstance(raw, str):
            return raw[:_HEAD_BYTES].encode(errors="surrogatepass")
        return bytes(raw)[:_HEAD_BYTES] if isinstance(raw, bytes | bytearray | memoryview) else b""
    except foreign_errors():
        return b""  # such as a view that was released


@lru_cache(maxsize=256)
def _begun(producer: str | None) -> blake2s:
    """Returns a digest of the name of *producer*, to be copied. Nobody may update it."""
    return blake2s(f"{producer}\0".encode(errors="surrogatepass"), digest_size=IDENTITY_BYTES)


# Remembered for speed: this runs for each message. The result depends on nothing but the two names.
@lru_cache(maxsize=256)
def _origin(pipeline: str, producer: str | None) -> bytes:
    return f"{pipeline}\0{producer}\0".encode(errors="surrogatepass")
