"""The frames of a published message are those that the client library would write."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header

from broadway_py.producers.rabbitmq.wire.publish_frames import PublishFrames

ROOM = 64

names = st.text("abc.é", max_size=20)
properties = st.builds(
    commands.Basic.Properties,
    content_type=st.none() | st.just("text/plain"),
    headers=st.dictionaries(st.text("xyz", min_size=1, max_size=5), st.text(max_size=10) | st.integers(0, 9)),
    delivery_mode=st.sampled_from([1, 2]),
    message_id=st.text(max_size=10),
)


Message = tuple[str, str, commands.Basic.Properties, bytes]


def written(channel: int, room: int, message: Message) -> bytes:
    """The same by pamqp, frame by frame."""
    exchange, key, props, data = message
    parts = [data[at : at + room] for at in range(0, len(data), room)] if room > 0 else [data][: len(data)]
    frames: list[commands.Basic.Publish | header.ContentHeader | body.ContentBody] = [
        commands.Basic.Publish(exchange=exchange, routing_key=key, mandatory=True),
        header.ContentHeader(0, len(data), props),
        *map(body.ContentBody, parts),
    ]
    return b"".join(frame.marshal(one, channel) for one in frames)


@given(
    channel=st.integers(1, 2047),
    room=st.sampled_from([ROOM, -8]),
    messages=st.lists(st.tuples(st.sampled_from(["", "out"]), names, properties, st.binary(max_size=3 * ROOM))),
)
def test_they_are_the_bytes_of_the_library(channel: int, room: int, messages: list[Message]) -> None:
    frames = PublishFrames(channel, room)
    for message in messages:
        assert b"".join(frames.of(*message)) == written(channel, room, message)


@pytest.mark.parametrize(
    ("exchange", "key", "headers", "error"),
    [
        ("", "k" * 256, {}, TypeError),
        ("e" * 128, "", {}, ValueError),
        ("", "", {"x": object()}, TypeError),
    ],
    ids=["a routing key", "an exchange", "a header of no kind"],
)
def test_what_cannot_be_written_is_an_error_and_the_next_message_is_right(
    exchange: str, key: str, headers: dict[str, Any], error: type[Exception]
) -> None:
    frames, good = PublishFrames(1, ROOM), ("", "out", commands.Basic.Properties(message_id="m"), b"body")
    with pytest.raises(error):
        frames.of(exchange, key, commands.Basic.Properties(headers=headers), b"body")
    assert b"".join(frames.of(*good)) == written(1, ROOM, good)
