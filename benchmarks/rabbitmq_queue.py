"""Fills the queue that RabbitMQ rows drain, and counts what is left: on the broker, by hand, with confirms."""

from __future__ import annotations

import struct

from pamqp import commands

from benchmarks.wire import CONFIRM, METHOD, Wire, content, frame_size

__all__ = ["BODY_BYTES", "fill", "identity", "left"]

BODY_BYTES = 256
#: Stands for an id in the template; as wide as every id, so that no length changes when it is replaced.
_ID = b"9999999999"
_BURST = 500
_OPEN = 5000


def identity(body: bytes) -> int:
    """The id that :func:`fill` wrote into *body*."""
    return int(body[: len(_ID)])


def fill(url: str, queue: str, messages: int, *, body_bytes: int = BODY_BYTES, queue_type: str = "classic") -> None:
    """Make the durable queue anew and put *messages* on it, ids 0 …, each persistent and confirmed.

    Raises:
        RuntimeError: the broker confirmed something that was not published.
    """
    with Wire(url) as wire:
        wire.call(commands.Queue.Delete(queue=queue), commands.Queue.DeleteOk)
        wire.call(
            commands.Queue.Declare(queue=queue, durable=True, arguments={"x-queue-type": queue_type}),
            commands.Queue.DeclareOk,
        )
        wire.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
        confirms = _Confirms(wire)
        template = _template(queue, body_bytes)
        for first in range(0, messages, _BURST):
            ids = range(first, min(first + _BURST, messages))
            wire.socket.sendall(b"".join(template.replace(_ID, b"%010d" % number) for number in ids))
            confirms.published += len(ids)
            confirms.wait(at_most=_OPEN)
        confirms.wait(at_most=0)


def left(url: str, queue: str) -> int:
    """How many messages are ready. With no consumer connected none is unacknowledged: this is all there is.

    Raises:
        RuntimeError: somebody still consumes.
    """
    with Wire(url) as wire:
        found = wire.call(commands.Queue.Declare(queue=queue, passive=True), commands.Queue.DeclareOk)
    if found.consumer_count:
        raise RuntimeError(f"queue {queue!r}: expected no consumer after the run, {found.consumer_count} are left")
    return int(found.message_count or 0)


def _template(queue: str, body_bytes: int) -> bytes:
    """The frames of a publish whose id, in the body and as message id, is :data:`_ID`."""
    properties = commands.Basic.Properties(
        content_type="application/octet-stream", delivery_mode=2, message_id=_ID.decode()
    )
    return content(queue, _ID.ljust(body_bytes, b"."), properties)


class _Confirms:
    """Which publishes the broker has not confirmed yet."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.published = 0
        self._confirmed_to = 0
        self._alone: set[int] = set()

    def wait(self, *, at_most: int) -> None:
        """Return once no more than *at_most* publishes are open."""
        while self.published - self._confirmed_to - len(self._alone) > at_most:
            self.wire.receive()
            self._read()

    def _read(self) -> None:
        buffer = self.wire.buffer
        at = 0
        while at + 7 <= len(buffer) and at + (size := frame_size(buffer, at)) <= len(buffer):
            kind, method = buffer[at], struct.unpack_from(">I", buffer, at + 7)[0]
            if kind != METHOD or method != CONFIRM:
                raise RuntimeError(f"expected a confirm, got frame type {kind}, method {method >> 16}.{method & 65535}")
            tag, multiple = struct.unpack_from(">QB", buffer, at + 11)
            self._confirm(tag, multiple=bool(multiple & 1))
            at += size
        del buffer[:at]

    def _confirm(self, tag: int, *, multiple: bool) -> None:
        if multiple:
            self._confirmed_to = max(self._confirmed_to, tag)
            self._alone = {number for number in self._alone if number > self._confirmed_to}
        else:
            self._alone.add(tag)
        while self._confirmed_to + 1 in self._alone:
            self._confirmed_to += 1
            self._alone.remove(self._confirmed_to)
