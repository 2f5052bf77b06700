"""Limit: messages are written to a bare socket in bursts of 500, with 1,000 at most that are not confirmed."""

from __future__ import annotations

import struct

from pamqp import commands

from benchmarks.measure import Meter, arguments
from benchmarks.wire import CONFIRM, METHOD, Wire, content, frame_size

_BURST = 500
_OPEN = 1000
#: As wide as every id, so that no length changes when it is replaced.
_ID = b"9999999999"


def publish(url: str, queue: str, messages: int, body_bytes: int) -> None:
    """Publish *messages*, ids 0 …, each persistent and confirmed."""
    properties = commands.Basic.Properties(content_type="application/json", delivery_mode=2, message_id=_ID.decode())
    template = content(queue, _ID.ljust(body_bytes, b"."), properties)
    with Wire(url) as wire:
        wire.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
        confirmed = 0
        for first in range(0, messages, _BURST):
            ids = range(first, min(first + _BURST, messages))
            wire.socket.sendall(b"".join(template.replace(_ID, b"%010d" % number) for number in ids))
            while ids.stop - confirmed > (_OPEN - _BURST if ids.stop < messages else 0):
                wire.receive()
                confirmed = _latest(wire.buffer, confirmed)


def _latest(buffer: bytearray, confirmed: int) -> int:
    """How many messages are confirmed, if confirms come in the order of the messages, as from one queue."""
    at = 0
    while at + 7 <= len(buffer) and at + (size := frame_size(buffer, at)) <= len(buffer):
        if buffer[at] != METHOD or struct.unpack_from(">I", buffer, at + 7)[0] != CONFIRM:
            raise RuntimeError("expected confirms only")
        (confirmed,) = struct.unpack_from(">Q", buffer, at + 11)
        at += size
    del buffer[:at]
    return confirmed


if __name__ == "__main__":
    parser = arguments(__doc__ or "", broker=True)
    parser.add_argument("--body", type=int, required=True, help="the size of a body")
    asked = parser.parse_args()
    meter = Meter(gate=asked.gate)
    publish(asked.url, asked.queue, asked.messages, asked.body)
    meter.report("publish_rabbitmq_socket", asked.messages)
