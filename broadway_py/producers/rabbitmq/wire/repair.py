"""Repairs frames for the client library, which closes its connection if a property does not decode."""

from __future__ import annotations

import struct
from typing import Final

from pamqp.header import ContentHeader

from broadway_py.producers.rabbitmq.wire.envelope import UNDECODABLE, decodable

__all__ = ["mended"]

_METHOD: Final = 1
_HEADER: Final = 2
_END: Final = b"\xce"
_frame = struct.Struct(">BHI")  # type, channel, size of the payload
#: basic.get-ok. After it come the delivery tag, one byte of flags, two names, and how many messages are left.
_GET_OK: Final = b"\x00\x3c\x00\x47"
_BEFORE_NAMES: Final = len(_GET_OK) + 9
#: The bytes of a header before its word of flags: class, weight, size of the body.
_BEFORE_FLAGS: Final = 12


def mended(frames: bytes) -> bytes:
    """Returns *frames* without what does not decode in fetched messages: properties, exchange, routing key.

    Nothing else is changed. Incomplete frames, and methods that are not valid AMQP, stay as they came.
    """
    parts: list[bytes] = []
    at = 0
    while len(frames) - at > _frame.size:
        kind, channel, size = _frame.unpack_from(frames, at)
        payload = at + _frame.size
        after = payload + size + len(_END)
        if after > len(frames):
            break
        came = frames[payload : payload + size]
        fit = _mended_payload(kind, came)
        parts.append(frames[at:after] if fit is came else _frame.pack(kind, channel, len(fit)) + fit + _END)
        at = after
    return b"".join((*parts, frames[at:]))


def _mended_payload(kind: int, payload: bytes) -> bytes:
    if kind == _HEADER and not _decodes(payload):
        return _with_what_decodes(payload)
    if kind == _METHOD and payload.startswith(_GET_OK):
        return _with_names_that_decode(payload)
    return payload


def _decodes(header: bytes) -> bool:
    try:
        ContentHeader().unmarshal(header)
    except UNDECODABLE:
        return False
    return True


def _with_what_decodes(header: bytes) -> bytes:
    flags, kept = 0, b""
    for each in decodable(header):
        flags |= each.flag
        kept += each.data
    return header[:_BEFORE_FLAGS] + flags.to_bytes(2) + kept


def _with_names_that_decode(method: bytes) -> bytes:
    names, at = b"", _BEFORE_NAMES
    for _ in ("exchange", "routing key"):
        if at >= len(method):
            return method
        name = method[at : at + 1 + method[at]]
        try:
            name[1:].decode()
        except UnicodeDecodeError:
            names += b"\0"
        else:
            names += name
        at += len(name)
    mend = method[:_BEFORE_NAMES] + names + method[at:]
    return method if mend == method else mend
