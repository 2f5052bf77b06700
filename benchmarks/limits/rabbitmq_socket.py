"""Limit: a bare socket that only counts; manual acknowledgement, prefetch 500, one ack(multiple) per 250 deliveries.

With another prefetch: per half of it.
"""

from __future__ import annotations

from pamqp import commands, frame

from benchmarks.measure import Meter, arguments
from benchmarks.wire import BODY, Wire, frame_size


def drain(url: str, queue: str, messages: int, prefetch: int) -> int:
    """Take and acknowledge *messages*; how many were counted. Bodies must fit one frame."""
    count = 0
    ack_every = max(1, prefetch // 2)
    with Wire(url) as wire:
        wire.call(commands.Basic.Qos(prefetch_count=prefetch), commands.Basic.QosOk)
        wire.call(commands.Basic.Consume(queue=queue), commands.Basic.ConsumeOk)
        buffer = wire.buffer
        while count < messages:
            at, end = 0, len(buffer)
            while at + 7 <= end:
                after = at + frame_size(buffer, at)
                if after > end:
                    break
                if buffer[at] == BODY:
                    count += 1
                    if count % ack_every == 0 or count == messages:
                        # One consumer on a fresh channel: the tag of a delivery is its number.
                        wire.socket.sendall(frame.marshal(commands.Basic.Ack(count, multiple=True), 1))
                at = after
            del buffer[:at]
            if count < messages:
                wire.receive()
    return count


if __name__ == "__main__":
    asked = arguments(__doc__ or "", broker=True).parse_args()
    meter = Meter(gate=asked.gate)
    drained = drain(asked.url, asked.queue, asked.messages, asked.prefetch)
    meter.report("rabbitmq_socket", drained, "pamqp")
