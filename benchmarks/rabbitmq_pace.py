"""Offers messages at an even pace; each begins with the moment at which it was published."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from pamqp import commands

from benchmarks.measure import arguments
from benchmarks.rabbitmq_queue import BODY_BYTES
from benchmarks.wire import Wire, content

__all__ = ["began_at", "offered", "p99"]

#: Messages a second.
_PACE = 1000
#: Wide enough for the nanoseconds of the system's monotonic clock, which all processes share.
_STAMP = b"9999999999999999999"
#: So many messages are not counted: the first second.
_WARM_UP = _PACE


def began_at(body: bytes) -> float:
    """When *body* was published, in seconds of ``time.monotonic``."""
    return int(body[: len(_STAMP)]) / 1e9


def offered(url: str, queue: str, messages: int) -> subprocess.Popen[bytes]:
    """Begin to publish *messages* to *queue*, from another process."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.rabbitmq_pace",
        f"--messages={messages}",
        "--url",
        url,
        "--queue",
        queue,
    ]
    return subprocess.Popen(command)


def p99(latencies: Sequence[float]) -> float:
    """Seconds that all but the slowest hundredth stayed below, without the warm-up."""
    counted = sorted(latencies[_WARM_UP:] or latencies)
    return counted[int(0.99 * len(counted))]


def _publish(url: str, queue: str, messages: int) -> None:
    properties = commands.Basic.Properties(delivery_mode=2)
    template = content(queue, _STAMP.ljust(BODY_BYTES, b"."), properties)
    with Wire(url) as wire:
        start = time.monotonic()
        for number in range(messages):
            time.sleep(max(0.0, start + number / _PACE - time.monotonic()))
            wire.socket.sendall(template.replace(_STAMP, b"%019d" % time.monotonic_ns()))


if __name__ == "__main__":
    asked = arguments(__doc__ or "", broker=True).parse_args()
    _publish(asked.url, asked.queue, asked.messages)
