"""The cutter against pamqp, on the same bytes: whatever comes, and however the network splits it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader

from broadway_py.producers.rabbitmq.wire.delivery_parser import CorruptFrameError, Cutter, Ended
from broadway_py.producers.rabbitmq.wire.envelope import decode
from tests.producers.amqp_bytes import HEARTBEAT, OPENED, TUNED, content, delivery, method

#: Channels 1 and 2 have a sink for two consumers; 3 has none.
OURS = (1, 2)
CONSUMERS = ("ours", "ours too")

tags = st.integers(0, 2**63 - 1)
names = st.text(max_size=40)
exchanges = st.text("abcXYZ019._:-", max_size=40)  # what pamqp is willing to write
bodies = st.lists(st.binary(min_size=1, max_size=300), max_size=4)
headers = st.dictionaries(
    st.text(min_size=1, max_size=20), st.one_of(st.integers(-5, 5), names, st.booleans(), st.none()), max_size=3
)
properties = st.fixed_dictionaries(
    {}, optional={"message_id": names, "headers": headers, "priority": st.integers(0, 9), "delivery_mode": st.just(2)}
)


@st.composite
def deliveries(draw: st.DrawFn, channel: int, consumer_tag: str) -> list[bytes]:
    return delivery(
        draw(tags),
        draw(bodies),
        channel=channel,
        consumer_tag=consumer_tag,
        redelivered=draw(st.booleans()),
        exchange=draw(exchanges),
        routing_key=draw(names),
        **draw(properties),
    )


@st.composite
def things_with_content(draw: st.DrawFn, channel: int) -> list[bytes]:
    command: Any = draw(
        st.sampled_from(
            [commands.Basic.Return(312, "NO_ROUTE", "", "away"), commands.Basic.GetOk(1, False, "", "work", 0)]
        )
    )
    return [method(command, channel), *content(channel, draw(bodies), **draw(properties))]


def methods(channel: int) -> st.SearchStrategy[list[bytes]]:
    found: list[Any] = [
        commands.Basic.QosOk(),
        commands.Basic.ConsumeOk("ours"),
        commands.Basic.CancelOk("ours"),
        commands.Basic.Cancel("other"),
        commands.Basic.Cancel("ours"),
        commands.Basic.Ack(1, False),
        commands.Channel.Close(406, "PRECONDITION_FAILED - it", 60, 80),
        commands.Channel.CloseOk(),
    ]
    # What ends a sink is rare: nothing much would be cut otherwise.
    chosen = st.sampled_from([*found[:4] * 5, *found[4:]])
    return chosen.map(lambda command: [method(command, channel)])


def groups(channel: int) -> st.SearchStrategy[list[bytes]]:
    ours = deliveries(channel, "ours")
    too = deliveries(channel, "ours too")
    return st.one_of(ours, ours, too, deliveries(channel, "other"), things_with_content(channel), methods(channel))


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Frames of three channels, those of each channel in order, and heartbeats between any two."""
    waiting = [[one for group in draw(st.lists(groups(channel), max_size=6)) for one in group] for channel in (1, 2, 3)]
    mixed: list[bytes] = []
    while any(waiting):
        which = draw(st.integers(0, 3))
        if which == 3:
            mixed.append(HEARTBEAT)
        elif waiting[which]:
            # Several at once, or no delivery would ever come in one piece.
            count = draw(st.integers(1, 8))
            mixed += waiting[which][:count]
            del waiting[which][:count]
    if draw(st.booleans()):
        closing = method(commands.Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0), 0)
        mixed.insert(draw(st.integers(0, len(mixed))), closing)
    return mixed


def split(data: st.DataObject, stream: bytes) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@dataclass
class Model:
    """What the cutter must come to, frame by frame, as pamqp reads them."""

    forward: bytes = b""
    found: list[tuple[int, dict[str, Any], dict[str, Any], bytes]] = field(default_factory=list)
    ended: list[tuple[int, Ended]] = field(default_factory=list)
    consumers: dict[int, set[str]] = field(default_factory=lambda: {channel: set(CONSUMERS) for channel in OURS})
    #: Of complete deliveries.
    body_frames: int = 0
    #: Bytes of deliveries that did not become complete.
    dropped: int = 0

    def __post_init__(self) -> None:
        self._under_way: dict[int, list[Any]] = {}
        self._bytes: dict[int, int] = {}

    def hear(self, one: bytes) -> None:
        _, channel, read = frame.unmarshal(one)
        watched = self.consumers.get(channel, set())
        match read:
            case commands.Basic.Deliver() if read.consumer_tag in watched:
                self._under_way[channel] = [read]
                self._bytes[channel] = len(one)
            case ContentHeader() | ContentBody() if channel in self._under_way:
                self._under_way[channel].append(read)
                self._bytes[channel] += len(one)
            case _:
                self.forward += one
                self._end(channel, read)
        self._complete(channel)

    def _complete(self, channel: int) -> None:
        deliver, *rest = self._under_way.get(channel, [None])
        if rest and sum(len(part.value) for part in rest[1:]) == rest[0].body_size:
            body = b"".join(part.value for part in rest[1:])
            self.found.append((channel, dict(deliver), dict(rest[0].properties), body))
            self.body_frames += len(rest) - 1
            del self._under_way[channel], self._bytes[channel]

    def _end(self, channel: int, read: object) -> None:
        watched = self.consumers.get(channel)
        match read:
            case commands.Connection.Close():
                self.ended += [(each, Ended("connection", read.reply_text or "")) for each in self.consumers]
                self.dropped += sum(self._bytes.values())
                self.consumers.clear()
                self._under_way.clear()
                self._bytes.clear()
            case commands.Channel.Close() | commands.Channel.CloseOk() if watched is not None:
                self.ended.append((channel, Ended("channel", getattr(read, "reply_text", ""))))
                del self.consumers[channel]
            case commands.Basic.Cancel() | commands.Basic.CancelOk() if watched and read.consumer_tag in watched:
                watched.remove(read.consumer_tag)
                if isinstance(read, commands.Basic.Cancel):
                    self.ended.append((channel, Ended("consumer", read.consumer_tag)))


@dataclass
class Heard:
    """What a cutter came to."""

    forward: bytes = b""
    #: All that was cut out, but for the marks around the frames of bodies.
    cut: int = 0
    found: list[tuple[int, dict[str, Any], dict[str, Any], bytes]] = field(default_factory=list)
    ended: list[tuple[int, Ended]] = field(default_factory=list)


def watched(cutter: Cutter, channel: int) -> None:
    sink = cutter.sink(channel)
    for consumer_tag in CONSUMERS:
        sink.add(consumer_tag)


def cut_all(pieces: Sequence[bytes]) -> Heard:
    cutter, heard = Cutter(), Heard()
    cutter.feed(TUNED + OPENED)
    for channel in OURS:
        watched(cutter, channel)
    for piece in pieces:
        cut = cutter.feed(piece)
        heard.forward += cut.forward
        for sink, found in cut.lists.items():
            for tag, redelivered, envelope, body, consumer_tag in found:
                deliver, read = decode(consumer_tag, tag, envelope, redelivered=bool(redelivered))
                heard.cut += 7 + 4 + 1 + len(consumer_tag) + 9 + len(envelope) + len(body)
                heard.found.append((sink.channel, dict(deliver), dict(read), body))
        heard.ended += [(sink.channel, why) for sink, why in cut.ended]
        assert_whole_frames(cut.forward)
        assert cutter.kept <= 4096
    return heard


def assert_whole_frames(forward: bytes) -> None:
    at = 0
    while at < len(forward):
        used, _, _ = frame.unmarshal(forward[at:])
        at += used
    assert at == len(forward)


def by_channel(found: list[tuple[int, dict[str, Any], dict[str, Any], bytes]]) -> dict[int, list[Any]]:
    # One read gives one list per sink; the order between two channels means nothing.
    return {channel: [rest for its, *rest in found if its == channel] for channel in OURS}


@given(st.data())
def test_it_comes_to_what_pamqp_reads_in_the_same_bytes(data: st.DataObject) -> None:
    frames = data.draw(streams())
    model = Model()
    for one in frames:
        model.hear(one)
    heard = cut_all(split(data, b"".join(frames)))
    assert heard.forward == model.forward
    assert by_channel(heard.found) == by_channel(model.found)
    assert heard.ended == model.ended
    # What was forwarded and what was cut out is all that came.
    assert len(heard.forward) + heard.cut + 8 * model.body_frames + model.dropped == sum(map(len, frames))


@given(st.data())
def test_damaged_bytes_never_do_anything_but_be_refused(data: st.DataObject) -> None:
    frames = data.draw(streams())
    stream = bytearray(b"".join(frames))
    for _ in range(data.draw(st.integers(1, 3))):
        if stream:
            stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    cutter = Cutter()
    cutter.feed(TUNED + OPENED)
    for channel in OURS:
        watched(cutter, channel)
    came = passed_on = 0
    with contextlib.suppress(CorruptFrameError):
        for piece in split(data, bytes(stream)):
            cut = cutter.feed(piece)
            came += len(piece)
            passed_on += len(cut.forward)
            assert passed_on <= came
            assert cutter.kept <= 4096
            assert_complete(cut.forward)


def assert_complete(forward: bytes) -> None:
    """Whole frames, whatever is in them."""
    at = 0
    while at < len(forward):
        _, _, size = frame.frame_parts(forward[at : at + 7])
        assert size is not None
        at += size + 8
        assert forward[at - 1] == 0xCE
    assert at == len(forward)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_bytes_that_are_no_amqp_at_all_are_refused_or_passed_on(hello: bytes, more: bytes) -> None:
    cutter = Cutter()
    try:
        assert cutter.feed(hello).forward + cutter.feed(more).forward == hello + more
    except (CorruptFrameError, PAMQPException):
        assert cutter.is_open
