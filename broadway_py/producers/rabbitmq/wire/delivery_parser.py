"""Takes deliveries out of the bytes that a broker sends, and leaves all other bytes to the client library. Pure."""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple

from pamqp import frame
from pamqp.exceptions import PAMQPException

__all__ = ["CorruptFrameError", "Cut", "Cutter", "Delivery", "Ended", "Sink"]

#: Delivery tag, redelivered (0 or 1), envelope, body, consumer tag. The envelope is everything between the redelivered
#: flag and the body: the rest of the method frame from the exchange's name on, and the header frame, both with their
#: end marks. It is a plain tuple, because one is made per message.
Delivery = tuple[int, int, bytes, bytes, str]

_METHOD: Final = 1
_HEADER: Final = 2
_BODY: Final = 3
_HEARTBEAT: Final = 8
_KINDS: Final = frozenset((_METHOD, _HEADER, _BODY, _HEARTBEAT))
_FRAME_END: Final = 0xCE
#: The bytes of a frame before its payload, and all bytes of a frame besides its payload.
_HEAD: Final = 7
_AROUND: Final = 8
_BASIC: Final = 60
#: The size of the shortest payload of a header frame: class, weight, size of the body, and one word of flags.
_LEAST_HEADER: Final = 14

_frame = struct.Struct(">BHI")  # type, channel, size of the payload
_tag = struct.Struct(">QB")  # delivery tag, redelivered
_header = struct.Struct(">BHIHHQ")  # a header frame: type, channel and size; class, weight, size of the body
_tune = struct.Struct(">HI")  # channel_max, frame_max

_DELIVER: Final = b"\x00\x3c\x00\x3c"
_CANCEL: Final = b"\x00\x3c\x00\x1e"
_CONSUMER_ENDS: Final = (_CANCEL, b"\x00\x3c\x00\x1f")  # cancel, cancel-ok
_CHANNEL_ENDS: Final = (b"\x00\x14\x00\x28", b"\x00\x14\x00\x29")  # close, close-ok
_CONNECTION_ENDS: Final = (b"\x00\x0a\x00\x32", b"\x00\x0a\x00\x33")  # close, close-ok
_TUNE: Final = b"\x00\x0a\x00\x1e"
_OPEN_OK: Final = b"\x00\x0a\x00\x29"

#: The frame size before both sides have agreed on one: RabbitMQ's default proposal.
_FIRST_FRAME_MAX: Final = 131_072
#: RabbitMQ accepts no larger message, whatever its settings are. So it also limits a frame if no limit was agreed.
_BODY_MAX: Final = 512 << 20


class CorruptFrameError(Exception):
    """The bytes are not AMQP frames, or not in an order that AMQP allows. The text shows no payload."""


class Ended(NamedTuple):
    """The end of one consumer, of the channel or of the connection. *text* is the broker's reason, "" for none."""

    what: Literal["consumer", "channel", "connection"]
    #: For a consumer: its tag.
    text: str = ""


class _Consumer:
    __slots__ = ("channel", "prefix", "tag")

    def __init__(self, channel: int, tag: str) -> None:
        self.channel = channel
        self.tag = tag
        name = tag.encode()
        #: How every basic.deliver of this consumer begins, after the head of its frame.
        self.prefix = b"%b%c%b" % (_DELIVER, len(name), name)


class Sink:
    """Collects the deliveries of our consumers on one channel."""

    __slots__ = ("_consumers", "_latest", "channel", "ended", "unfinished")

    def __init__(self, channel: int) -> None:
        self.channel = channel
        #: Set at the byte that ends the sink.
        self.ended: Ended | None = None
        #: The delivery whose frames have not all come yet.
        self.unfinished: _Unfinished | None = None
        self._consumers: dict[bytes, _Consumer] = {}
        # Consecutive deliveries mostly have the same consumer.
        self._latest: _Consumer | None = None

    def add(self, consumer_tag: str) -> None:
        """Adds a consumer whose deliveries are taken out. Called before the consumer starts."""
        self._consumers[consumer_tag.encode()] = _Consumer(self.channel, consumer_tag)

    def remove(self, consumer_tag: str) -> bool:
        """Removes a consumer that has ended. Returns False if it was not ours."""
        gone = self._consumers.pop(consumer_tag.encode(), None)
        if gone is self._latest:
            self._latest = None
        return gone is not None

    def consumer_of(self, data: bytes, at: int) -> _Consumer | None:
        """Returns our consumer if the method at *at* (from its id on) is a delivery to it; None: it is not ours."""
        latest = self._latest
        if latest is not None and data.startswith(latest.prefix, at):
            return latest
        if not data.startswith(_DELIVER, at):
            return None
        name = at + len(_DELIVER) + 1
        found = self._consumers.get(data[name : name + data[name - 1]])
        if found is not None:
            self._latest = found
        return found


class Cut(NamedTuple):
    """The result of one read."""

    #: The bytes for the client library, in order.
    forward: bytes
    #: All deliveries of each sink that got any.
    lists: dict[Sink, list[Delivery]]
    #: What ended. Each end comes after the last of its deliveries in :attr:`lists`. If only a consumer ended, its sink
    #: goes on.
    ended: list[tuple[Sink, Ended]]


class Cutter:
    """Parses the bytes of one connection, from the first one on.

    Until connection.open-ok all bytes are passed on as they came, also parts of frames; after it, in whole frames. It
    stores at most one frame of the agreed size, and for each sink one incomplete delivery.
    """

    def __init__(self) -> None:
        self._sinks: dict[int, Sink] = {}
        #: Whether connection.open-ok was seen.
        self.is_open = False
        # Set if the bytes are not frames (for example the answer to a wrong protocol header). The client library
        # reports that.
        self._is_foreign = False
        self._most = _FIRST_FRAME_MAX
        # The bytes of an incomplete frame as they came, and how many bytes are needed before parsing is useful.
        self._parts: list[bytes] = []
        self._need = _HEAD
        #: How many bytes of an incomplete frame are stored.
        self.kept = 0

    def sink(self, channel: int) -> Sink:
        """Makes a new sink for our consumers on *channel*, which replaces an earlier one."""
        sink = self._sinks[channel] = Sink(channel)
        return sink

    def feed(self, data: bytes) -> Cut:
        """Parses *data* and returns the result.

        Raises:
            CorruptFrameError: the connection is unusable; do not call this again.
        """
        if self._is_foreign:
            return Cut(data, {}, [])
        fresh = len(data)
        if self._parts:
            self._parts.append(data)
            self.kept += fresh
            if self.kept < self._need:
                return Cut(b"" if self.is_open else data, {}, [])
            data = b"".join(self._parts)
            self._parts.clear()
            self.kept = 0
        return self._cut(data, 0) if self.is_open else self._greet(data, len(data) - fresh)

    def _keep(self, data: bytes, at: int) -> None:
        """Stores *data* from *at* on, which is an incomplete frame."""
        left = len(data) - at
        if left:
            self._parts.append(data[at:])
            self.kept = left
            self._need = _HEAD if left < _HEAD else _frame.unpack_from(data, at)[2] + _AROUND

    # --- before the connection is open ----------------------------------------------------------------------------

    def _greet(self, data: bytes, passed_on: int) -> Cut:
        """Reads the handshake. All of *data* after *passed_on* is passed on as it came."""
        at, end = 0, len(data)
        while end - at >= _HEAD:
            kind, channel, size = _frame.unpack_from(data, at)
            after = at + size + _AROUND
            if channel != 0 or kind not in (_METHOD, _HEARTBEAT) or size > self._most:
                self._is_foreign = True
                return Cut(data[passed_on:], {}, [])
            if after > end:
                break
            method = data[at + _HEAD : at + _HEAD + 4]
            if method == _TUNE and size >= 4 + _tune.size:
                _, frame_max = _tune.unpack_from(data, at + _HEAD + 4)
                self._most = (frame_max or _BODY_MAX) - _AROUND
            elif method == _OPEN_OK:
                self.is_open = True
                rest = self._cut(data, after)
                return rest._replace(forward=data[passed_on:after] + rest.forward)
            at = after
        self._keep(data, at)
        return Cut(data[passed_on:], {}, [])

    # --- while it is open -----------------------------------------------------------------------------------------

    def _cut(self, data: bytes, at: int) -> Cut:
        forward: list[bytes] = []
        lists: dict[Sink, list[Delivery]] = {}
        ended: list[tuple[Sink, Ended]] = []
        end, most = len(data), self._most
        # The start of the frames that go to the client library and are not in `forward` yet.
        begin = at
        while end - at >= _HEAD:
            kind, channel, after = _checked(data, at, most)
            if after > end:
                break
            sink = self._sinks.get(channel)
            consumer = None if sink is None or kind != _METHOD else sink.consumer_of(data, at + _HEAD)
            if sink is None or (consumer is None and (kind == _METHOD or sink.unfinished is None)):
                # Other content on this channel is passed on, too: basic.return, basic.get-ok, deliveries of others.
                if kind == _METHOD:
                    ended += self._ended_by(sink, data[at:after])
                at = after
                continue
            if begin < at:
                forward.append(data[begin:at])
            deliveries = lists.setdefault(sink, [])
            past = at
            if consumer is not None and sink.unfinished is None:
                past = _whole_deliveries(data, at, consumer, most, deliveries)
            if past == at:
                past = after
                if (delivery := _part_of_delivery(data, at, after, sink, consumer)) is not None:
                    deliveries.append(delivery)
            begin = at = past
        if begin < at:
            forward.append(data[begin:at])
        self._keep(data, at)
        return Cut(b"".join(forward), {sink: found for sink, found in lists.items() if found}, ended)

    def _ended_by(self, sink: Sink | None, method: bytes) -> list[tuple[Sink, Ended]]:
        """Returns what *method*, a frame on the channel of *sink*, ends. Removes sinks that end."""
        name = method[_HEAD : _HEAD + 4]
        if name in _CONNECTION_ENDS and method[1:3] == b"\0\0":
            gone, why = list(self._sinks.values()), Ended("connection", _text(method, "reply_text"))
        elif sink is not None and name in _CHANNEL_ENDS:
            gone, why = [sink], Ended("channel", _text(method, "reply_text"))
        elif sink is not None and name in _CONSUMER_ENDS:
            tag = _text(method, "consumer_tag")
            # Only a cancel by the broker is reported. The answer to our own cancel is not.
            return [(sink, Ended("consumer", tag))] if sink.remove(tag) and name == _CANCEL else []
        else:
            return []
        for each in gone:
            each.ended, each.unfinished = why, None
            del self._sinks[each.channel]
        return [(each, why) for each in gone]


class _Unfinished:
    """A delivery whose frames have not all come yet."""

    __slots__ = ("_body", "_consumer_tag", "_envelope", "_missing", "_redelivered", "_tag")

    def __init__(self, consumer_tag: str, tag: int, redelivered: int, rest_of_method: bytes) -> None:
        self._consumer_tag = consumer_tag
        self._tag = tag
        self._redelivered = redelivered
        self._envelope = rest_of_method
        self._body: list[bytes] | None = None
        self._missing = 0

    def add(self, kind: int, data: bytes, at: int, after: int) -> Delivery | None:
        """Adds the channel's next frame, ``data[at:after]``. Returns the whole delivery after its last frame."""
        if self._body is None:
            if kind != _HEADER or after - at < _LEAST_HEADER + _AROUND:
                raise CorruptFrameError(f"a frame of type {kind} came instead of the header frame of a delivery")
            _, _, _, class_id, _, self._missing = _header.unpack_from(data, at)
            if class_id != _BASIC or self._missing > _BODY_MAX:
                raise CorruptFrameError(f"a header announces {self._missing} bytes for class {class_id}")
            self._envelope += data[at:after]
            self._body = []
        else:
            size = after - at - _AROUND
            if kind != _BODY or not 0 < size <= self._missing:
                raise CorruptFrameError(
                    f"a frame of type {kind} with {size} bytes came instead of the missing {self._missing} bytes "
                    "of a body"
                )
            self._body.append(data[at + _HEAD : after - 1])
            self._missing -= size
        if self._missing:
            return None
        return self._tag, self._redelivered, self._envelope, b"".join(self._body), self._consumer_tag


def _checked(data: bytes, at: int, most: int) -> tuple[int, int, int]:
    """Returns type, channel and end of the frame at *at*. The end is past the end of *data* if the frame is incomplete.

    Raises:
        CorruptFrameError: it is not a frame.
    """
    kind, channel, size = _frame.unpack_from(data, at)
    if size > most:
        raise CorruptFrameError(f"a frame of {size} bytes came, but at most {most} were agreed")
    after = at + size + _AROUND
    if after <= len(data):
        if kind not in _KINDS:
            raise CorruptFrameError(f"a frame of the unknown type {kind} came")
        if data[after - 1] != _FRAME_END:
            raise CorruptFrameError(f"a frame of type {kind} ends with {data[after - 1]:#04x} instead of 0xce")
    return kind, channel, after


def _whole_deliveries(data: bytes, at: int, consumer: _Consumer, most: int, found: list[Delivery]) -> int:
    """Takes complete deliveries to *consumer*, one after the other. Each has its body in one frame: nearly all do.

    Returns the position of the first bytes that are anything else, right or wrong. This loop is the main cost of a
    message.
    """
    end, channel, prefix, consumer_tag = len(data), consumer.channel, consumer.prefix, consumer.tag
    envelope_from = _HEAD + len(prefix) + _tag.size
    frame_at, tag_at, header_at = _frame.unpack_from, _tag.unpack_from, _header.unpack_from
    while end - at >= _HEAD:
        kind, its_channel, size = frame_at(data, at)
        header = at + size + _AROUND
        envelope = at + envelope_from
        # After the delivery tag there are at least two empty names and the end mark.
        if (
            kind != _METHOD
            or its_channel != channel
            or end - header < _header.size
            or not data.startswith(prefix, at + _HEAD)
            or envelope + 3 > header
            or data[header - 1] != _FRAME_END
        ):
            break
        kind, its_channel, size, class_id, _, body_size = header_at(data, header)
        body = header + size + _AROUND
        first = body + _HEAD
        last = first + body_size
        if (
            kind != _HEADER
            or its_channel != channel
            or class_id != _BASIC
            or size < _LEAST_HEADER
            or not 0 < body_size <= most
            or last >= end
            or data[body - 1] != _FRAME_END
            or frame_at(data, body) != (_BODY, channel, body_size)
            or data[last] != _FRAME_END
        ):
            break
        tag, redelivered = tag_at(data, envelope - _tag.size)
        found.append((tag, redelivered & 1, data[envelope:body], data[first:last], consumer_tag))
        at = last + 1
    return at


def _part_of_delivery(data: bytes, at: int, after: int, sink: Sink, consumer: _Consumer | None) -> Delivery | None:
    """Takes one frame of a delivery to *sink*. Returns the whole delivery after its last frame.

    *consumer* is given for the first frame.
    """
    unfinished = sink.unfinished
    if consumer is None and unfinished is not None:
        delivery = unfinished.add(data[at], data, at, after)
        if delivery is not None:
            sink.unfinished = None
        return delivery
    envelope = at + _HEAD + (0 if consumer is None else len(consumer.prefix)) + _tag.size
    if consumer is None or unfinished is not None or envelope + 3 > after:
        raise CorruptFrameError("a basic.deliver is too short, or came in the middle of another delivery")
    tag, redelivered = _tag.unpack_from(data, envelope - _tag.size)
    sink.unfinished = _Unfinished(consumer.tag, tag, redelivered & 1, data[envelope:after])
    return None


def _text(method: bytes, field: str) -> str:
    """Returns a text field of a method frame; "" if it has none or does not decode (the library reports that, too)."""
    try:
        return str(getattr(frame.unmarshal(method)[2], field, None) or "")
    except PAMQPException:
        return ""
