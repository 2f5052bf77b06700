"""What the client library could not read is left out before it sees it."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broadway_py.producers.rabbitmq.wire.repair import mended

#: A header whose properties all decode, whatever else is in the table.
SOUND = Basic.Properties(content_type="text/plain", headers={"n": 1, "S": "text"}, message_id="m-1", priority=3)


def method(exchange: bytes = b"events", routing_key: bytes = b"orders.new") -> bytes:
    """A basic.get-ok."""
    names = b"".join(bytes((len(name),)) + name for name in (exchange, routing_key))
    return framed(1, b"\x00\x3c\x00\x47" + struct.pack(">QB", 7, 1) + names + struct.pack(">I", 4))


def header(raw: bytes) -> bytes:
    """With these properties: their flags, and what follows."""
    return framed(2, struct.pack(">HHQ", 60, 0, 3) + raw)


def framed(kind: int, payload: bytes, channel: int = 1) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def read(frames: bytes) -> list[object]:
    """As the client library reads them."""
    found: list[object] = []
    while frames:
        length, _, one = frame.unmarshal(frames)
        found.append(one)
        frames = frames[length:]
    return found


BODY = framed(3, b"\xff\xfe\xfd")


def test_what_decodes_stays_as_it_came() -> None:
    frames = method() + frame.marshal(ContentHeader(0, 3, SOUND), 1) + BODY + framed(8, b"", 0)
    assert mended(frames) == frames


def test_a_property_that_does_not_decode_is_left_out_alone() -> None:
    # A message id in Latin-1, beside a priority and a type.
    raw = struct.pack(">H", 1 << 11 | 1 << 7 | 1 << 5) + b"\x03" + b"\x04caf\xe9" + b"\x05order"
    _, came, body = read(mended(method() + header(raw) + BODY))
    assert isinstance(came, ContentHeader)
    assert (came.body_size, came.properties.priority, came.properties.message_type) == (3, 3, "order")
    assert came.properties.message_id is None
    assert getattr(body, "value", None) == b"\xff\xfe\xfd"


def test_a_table_that_reaches_past_the_end_is_left_out_with_what_may_stand_behind_it() -> None:
    raw = struct.pack(">H", 1 << 15 | 1 << 13 | 1 << 7) + b"\x04text" + struct.pack(">I", 4000) + b"\x03m-1"
    (came,) = read(mended(header(raw)))
    assert isinstance(came, ContentHeader)
    assert (came.properties.content_type, came.properties.headers) == ("text", None)


def test_a_routing_key_that_does_not_decode_is_left_out() -> None:
    (got,) = read(mended(method(routing_key=b"caf\xe9")))
    assert isinstance(got, Basic.GetOk)
    assert (got.delivery_tag, got.redelivered, got.exchange, got.routing_key, got.message_count) == (
        7,
        True,
        "events",
        "",
        4,
    )


@given(st.integers(0, 0xFFFF), st.binary(max_size=60))
def test_whatever_a_publisher_writes_the_library_can_read_what_comes_of_it(flags: int, rest: bytes) -> None:
    # The last bit of the flags says that more of them follow, which no broker sends.
    came = mended(method() + header(struct.pack(">H", flags & ~1) + rest) + BODY)
    _, head, _ = read(came)
    assert isinstance(head, ContentHeader)
    assert mended(came) == came


@given(st.binary(max_size=80))
def test_what_are_no_frames_stays_as_it_came_or_is_at_least_not_choked_on(data: bytes) -> None:
    mended(data)
    assert mended(b"\x01" + data[:5]) == b"\x01" + data[:5]
    assert mended(framed(1, b"\x00\x3c\x00\x47" + data[:9])) == framed(1, b"\x00\x3c\x00\x47" + data[:9])
