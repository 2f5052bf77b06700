"""Chooses the delivery path: past the client library (fast) or through it (plain)."""

from __future__ import annotations

import asyncio
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

from broadway_py.errors import MalformedMessage, ProducerError
from broadway_py.log import logger
from broadway_py.producers.rabbitmq.connection.transport import CuttingReader
from broadway_py.producers.rabbitmq.wire.delivery_parser import Delivery, Ended
from broadway_py.producers.rabbitmq.wire.envelope import decode

__all__ = ["is_fast", "problem"]

log = logger("broadway_py.producers.rabbitmq")

#: The versions with which the fast path was tested: from the first one up to the second one, which is excluded.
_RANGES: Final = {"aio-pika": ((10, 2), (11,)), "aiormq": ((7, 2, 4), (8,)), "pamqp": ((4,), (5,))}

#: Bytes recorded from a RabbitMQ 3.10: tune, open-ok; channel.open-ok and consume-ok; three deliveries, one with an
#: empty body; channel.close.
_GREETING: Final = bytes.fromhex("0100000000000c000a001e07ff00020000003cce01000000000005000a002900ce")
_ANSWERS: Final = bytes.fromhex("010001000000080014000b00000000ce01000100000009003c0015046f757273ce")
_DELIVERIES: Final = bytes.fromhex(
    "01000100000015003c003c046f757273000000000000000100000171ce0200010000001b003c0000000000000000000330800000000401"
    "6e620102036d2d31ce030001000000036f6e65ce01000100000015003c003c046f757273000000000000000200000171ce020001000000"
    "0e003c000000000000000000000000ce01000100000015003c003c046f757273000000000000000300000171ce02000100000019003c00"
    "00000000000000000580000a746578742f706c61696ece030001000000057468726565ce"
)
_CLOSE: Final = bytes.fromhex(
    "01000100000043001400280194384e4f545f464f554e44202d206e6f20717565756520276e6f6e652720696e2076686f73742027746573"
    "742d333638343530626365373736270032000ace"
)
_EXPECTED: Final = [
    (1, b"one", {"message_id": "m-1", "headers": {"n": 1}, "delivery_mode": 2}),
    (2, b"", {}),
    (3, b"three", {"content_type": "text/plain"}),
]


def is_fast(wanted: Literal["auto", "fast", "plain"]) -> bool:
    """Returns whether deliveries bypass the client library. Needs a running event loop.

    Raises:
        ProducerError: *wanted* is ``fast``, but it cannot work here.
    """
    if wanted == "plain":
        return False
    found = problem()
    if found is None:
        return True
    if wanted == "fast":
        raise ProducerError(f"delivery_path is 'fast', but {found}; set delivery_path: auto or plain")
    _warn(found)
    return False


@cache
def _warn(found: str) -> None:
    """Logs the warning once per process, not once per connect."""
    log.warning(
        "deliveries take the plain path, which is slower; set delivery_path: plain to avoid this warning",
        reason=found,
    )


@cache
def problem() -> str | None:
    """Returns why the fast path cannot work with the installed libraries; None: it works. Checked once per process."""
    for package, (first, beyond) in _RANGES.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "no version"
        if not first <= _numbers(found) < beyond:
            wanted = f">={'.'.join(map(str, first))},<{'.'.join(map(str, beyond))}"
            return f"it was tested with {package}{wanted}, and {found} is installed"
    try:
        return _rehearse()
    except Exception as error:  # noqa: BLE001  # after any error here, the plain path is used
        return f"its self-test raised {type(error).__name__}"


def _numbers(found: str) -> tuple[int, ...]:
    numbers = []
    for part in found.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


class _Listener:
    """A receiver that stores what it gets."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.ends: list[Ended] = []

    def came(self, deliveries: list[Delivery]) -> None:
        self.deliveries += deliveries

    def ended(self, why: Ended) -> None:
        self.ends.append(why)

    def cut_off(self, problem: str | None) -> None:
        raise RuntimeError(problem or "cut off")


def _rehearse() -> str | None:
    """Feeds the recorded bytes as asyncio would, in two reads that split a frame. Returns what went wrong, or None."""
    loop = asyncio.get_running_loop()
    reader, heard = CuttingReader(loop), _Listener()
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    protocol.data_received(_GREETING + _ANSWERS)
    reader.sink(1, heard).add("ours")
    stream = _DELIVERIES + _CLOSE
    for part in (stream[:100], stream[100:]):
        protocol.data_received(part)
    if [(one[0], one[3], _properties(one)) for one in heard.deliveries] != _EXPECTED:
        return "its self-test did not return the recorded deliveries"
    if [end.what for end in heard.ends] != ["channel"]:
        return "its self-test did not see the end of the channel"
    # It ends at once, because the bytes are there.
    reading = reader.readexactly(len(_GREETING + _ANSWERS + _CLOSE))
    try:
        reading.send(None)
    except StopIteration as done:
        passed_on = done.value
    else:
        reading.close()
        passed_on = b""
    return (
        None
        if passed_on == _GREETING + _ANSWERS + _CLOSE
        else "its self-test did not pass on the frames of the client library"
    )


def _properties(delivery: Delivery) -> dict[str, object]:
    tag, redelivered, envelope, _, consumer_tag = delivery
    try:
        _, properties = decode(consumer_tag, tag, envelope, redelivered=bool(redelivered))
    except MalformedMessage:
        return {"malformed": True}
    return {name: value for name, value in dict(properties).items() if value not in (None, "")}
