"""How deliveries are cut out of a broker's bytes."""

from __future__ import annotations

import pytest
from pamqp import commands, frame, header

from broadway_py.producers.rabbitmq.wire.delivery_parser import CorruptFrameError, Cut, Cutter, Ended, Sink
from broadway_py.producers.rabbitmq.wire.envelope import decode
from tests.producers.amqp_bytes import HEARTBEAT, OPENED, TUNED, body_frame, content, delivery, method

CLOSE = method(commands.Channel.Close(404, "NOT_FOUND - no queue", 0, 0))


def opened() -> Cutter:
    cutter = Cutter()
    assert cutter.feed(TUNED + OPENED).forward == TUNED + OPENED
    return cutter


def watched(cutter: Cutter, channel: int = 1, *consumer_tags: str) -> Sink:
    sink = cutter.sink(channel)
    for tag in consumer_tags:
        sink.add(tag)
    return sink


def bodies(cut: Cut) -> list[bytes]:
    return [body for found in cut.lists.values() for _, _, _, body, _ in found]


def test_what_comes_in_one_read_is_one_list() -> None:
    cutter = opened()
    sink = watched(cutter, 1, "ours")
    stream = b"".join(b"".join(delivery(tag, [b"%d" % tag], redelivered=tag == 2)) for tag in (1, 2, 3))
    cut = cutter.feed(stream)
    assert cut.forward == b""
    assert [(tag, redelivered, body) for tag, redelivered, _, body, _ in cut.lists[sink]] == [
        (1, 0, b"1"),
        (2, 1, b"2"),
        (3, 0, b"3"),
    ]


def test_every_other_byte_is_forwarded_in_order() -> None:
    cutter = opened()
    watched(cutter, 1, "ours")
    qos, theirs = method(commands.Basic.QosOk()), b"".join(delivery(9, channel=2))
    stream = qos + b"".join(delivery(1)) + HEARTBEAT + theirs + b"".join(delivery(2)) + qos
    cut = cutter.feed(stream)
    assert cut.forward == qos + HEARTBEAT + theirs + qos
    assert bodies(cut) == [b"payload", b"payload"]


def test_another_consumer_of_the_same_channel_is_left_to_the_library() -> None:
    cutter = opened()
    watched(cutter, 1, "ours")
    other, longer = b"".join(delivery(1, consumer_tag="other")), b"".join(delivery(2, consumer_tag="ours too"))
    assert cutter.feed(other + longer).forward == other + longer


@pytest.mark.parametrize(
    "command",
    [commands.Basic.Return(312, "NO_ROUTE", "", "away"), commands.Basic.GetOk(7, False, "", "work", 0)],
)
def test_other_content_on_the_channel_is_left_to_the_library(command: object) -> None:
    cutter = opened()
    watched(cutter, 1, "ours")
    other = method(command) + b"".join(content(1, [b"back", b"again"]))
    cut = cutter.feed(other + b"".join(delivery(1)))
    assert cut.forward == other
    assert bodies(cut) == [b"payload"]


def test_a_body_in_several_frames_with_a_heartbeat_and_another_channel_between_them() -> None:
    cutter = opened()
    first, second = watched(cutter, 1, "ours"), watched(cutter, 2, "ours")
    one, two = delivery(1, [b"a", b"b", b"c"]), delivery(5, [b"x", b"y"], channel=2)
    mixed = [one[0], two[0], HEARTBEAT, one[1], one[2], two[1], two[2], HEARTBEAT, one[3], two[3], one[4]]
    cut = cutter.feed(b"".join(mixed))
    assert cut.forward == HEARTBEAT * 2
    assert [found[3] for found in cut.lists[first]] == [b"abc"]
    assert [found[3] for found in cut.lists[second]] == [b"xy"]


def test_a_body_of_no_bytes() -> None:
    cutter = opened()
    sink = watched(cutter, 1, "ours")
    cut = cutter.feed(b"".join(delivery(1, [])) + b"".join(delivery(2, [])))
    assert [(tag, body) for tag, _, _, body, _ in cut.lists[sink]] == [(1, b""), (2, b"")]


def test_only_whole_frames_are_forwarded() -> None:
    cutter = opened()
    qos = method(commands.Basic.QosOk())
    forwarded = [cutter.feed(qos[at : at + 1]).forward for at in range(len(qos))]
    assert forwarded == [b""] * (len(qos) - 1) + [qos]


def test_the_handshake_passes_untouched_up_to_open_ok_and_what_follows_in_the_same_read_is_cut() -> None:
    cutter = Cutter()
    sink = watched(cutter, 1, "ours")
    start = method(commands.Connection.Start(server_properties={"product": "x"}), 0)
    stream = start + TUNED + OPENED + b"".join(delivery(1)) + HEARTBEAT
    assert cutter.feed(stream[:5]).forward == stream[:5]
    cut = cutter.feed(stream[5:])
    assert stream[:5] + cut.forward == start + TUNED + OPENED + HEARTBEAT
    assert len(cut.lists[sink]) == 1


@pytest.mark.parametrize("answer", [b"AMQP\x00\x00\x09\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_an_answer_that_is_no_amqp_is_passed_on_for_the_library_to_say_so(answer: bytes) -> None:
    cutter = Cutter()
    assert b"".join(cutter.feed(answer[at : at + 3]).forward for at in range(0, len(answer), 3)) == answer


# --- ends -----------------------------------------------------------------------------------------------------------


def test_a_closed_channel_ends_its_sink_at_that_byte() -> None:
    cutter = opened()
    sink, other = watched(cutter, 1, "ours"), watched(cutter, 2, "ours")
    reused = b"".join(delivery(1))
    cut = cutter.feed(b"".join(delivery(1)) + CLOSE + reused + b"".join(delivery(1, channel=2)))
    assert cut.ended == [(sink, sink.ended)]
    assert sink.ended == Ended("channel", "NOT_FOUND - no queue")
    assert len(cut.lists[sink]) == 1
    assert cut.forward == CLOSE + reused
    assert other.ended is None
    assert len(cut.lists[other]) == 1


def test_a_close_in_the_middle_of_a_delivery_drops_the_part() -> None:
    cutter = opened()
    sink = watched(cutter, 1, "ours")
    parts = delivery(1, [b"a", b"b"])
    cut = cutter.feed(b"".join(parts[:3]) + CLOSE)
    assert (cut.lists, cut.ended, cut.forward) == ({}, [(sink, sink.ended)], CLOSE)


def test_close_ok_ends_it_as_well() -> None:
    cutter = opened()
    sink = watched(cutter, 1, "ours")
    assert cutter.feed(method(commands.Channel.CloseOk())).ended == [(sink, Ended("channel"))]


def test_a_cancelled_consumer_ends_alone() -> None:
    cutter = opened()
    sink = watched(cutter, 1, "ours", "also ours")
    one, two = b"".join(delivery(1)), b"".join(delivery(2, consumer_tag="also ours"))
    assert cutter.feed(method(commands.Basic.Cancel("theirs"))).ended == []
    cut = cutter.feed(one + two + method(commands.Basic.Cancel("ours")) + one + two)
    assert cut.ended == [(sink, Ended("consumer", "ours"))]
    assert [found[4] for found in cut.lists[sink]] == ["ours", "also ours", "also ours"]
    assert sink.ended is None


def test_the_answer_to_our_own_cancel_ends_the_consumer_without_news() -> None:
    cutter = opened()
    watched(cutter, 1, "ours")
    answer, late = method(commands.Basic.CancelOk("ours")), b"".join(delivery(1))
    cut = cutter.feed(late + answer + late)
    assert (cut.ended, cut.forward, len(bodies(cut))) == ([], answer + late, 1)


def test_a_closed_connection_ends_every_sink() -> None:
    cutter = opened()
    sinks = [watched(cutter, 1, "ours"), watched(cutter, 2, "ours")]
    cut = cutter.feed(method(commands.Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0), 0))
    assert [sink for sink, _ in cut.ended] == sinks
    assert [why for _, why in cut.ended] == [Ended("connection", "CONNECTION_FORCED - bye")] * 2


def test_a_new_sink_of_a_channel_gets_what_its_own_consumer_brings() -> None:
    cutter = opened()
    watched(cutter, 1, "first")
    second = watched(cutter, 1, "second")
    stale = b"".join(delivery(1, consumer_tag="first"))
    cut = cutter.feed(stale + b"".join(delivery(2, consumer_tag="second")))
    assert cut.forward == stale
    assert list(cut.lists) == [second]


# --- what does not fit ----------------------------------------------------------------------------------------------


def feed_all(cutter: Cutter, pieces: list[bytes]) -> None:
    for piece in pieces:
        cutter.feed(piece)


def damaged(whole: bytes, at: int, byte: int) -> bytes:
    return whole[:at] + bytes((byte,)) + whole[at + 1 :]


ONE = delivery(1, [b"abc"])
METHOD, HEADER, BODY = ONE
BIG = header.ContentHeader(0, 1 << 60, commands.Basic.Properties())


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        (METHOD[:-1] + b"\xcd", "a frame of type 1 ends with 0xcd instead of 0xce"),
        (METHOD + HEADER[:-1] + b"\x00", "a frame of type 2 ends with 0x00 instead of 0xce"),
        (METHOD + HEADER + BODY[:-1] + b"\x00", "a frame of type 3 ends with 0x00 instead of 0xce"),
        (b"\x01\x00\x01\x7f\xff\xff\xff", "a frame of 2147483647 bytes came, but at most 4088 were agreed"),
        (b"\x05\x00\x01\x00\x00\x00\x00\xce", "a frame of the unknown type 5 came"),
        (METHOD + BODY, "a frame of type 3 came instead of the header frame of a delivery"),
        (METHOD + METHOD, "a basic.deliver is too short, or came in the middle of another delivery"),
        (
            METHOD + HEADER + HEADER,
            f"a frame of type 2 with {len(HEADER) - 8} bytes came instead of the missing 3 bytes of a body",
        ),
        (
            METHOD + HEADER + body_frame(b"abcd"),
            "a frame of type 3 with 4 bytes came instead of the missing 3 bytes of a body",
        ),
        (
            METHOD + HEADER + body_frame(b""),
            "a frame of type 3 with 0 bytes came instead of the missing 3 bytes of a body",
        ),
        (METHOD + frame.marshal(BIG, 1), f"a header announces {1 << 60} bytes for class 60"),
        (METHOD + damaged(HEADER, 8, 61) + BODY, "a header announces 3 bytes for class 61"),
        (
            damaged(METHOD[: 7 + 4 + 5 + 9] + b"\xce", 6, 4 + 5 + 9),
            "a basic.deliver is too short, or came in the middle of another delivery",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(stream: bytes, sentence: str) -> None:
    for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        cutter = opened()
        watched(cutter, 1, "ours")
        with pytest.raises(CorruptFrameError) as refused:
            feed_all(cutter, pieces)
        assert str(refused.value) == sentence


def test_no_more_than_one_frame_is_kept() -> None:
    cutter = opened()
    watched(cutter, 1, "ours")
    largest = body_frame(b"." * 4088)
    for byte in largest[:-1]:
        cutter.feed(bytes((byte,)))
    assert cutter.kept == len(largest) - 1
    assert cutter.feed(largest[-1:]).forward == largest
    assert cutter.kept == 0


def test_no_limit_agreed_means_that_of_the_broker() -> None:
    cutter = Cutter()
    cutter.feed(method(commands.Connection.Tune(0, 0, 60), 0) + OPENED)
    sink = watched(cutter, 1, "ours")
    assert cutter.feed(b"".join(delivery(1, [b"." * 300_000]))).lists[sink][0][3] == b"." * 300_000


def test_an_envelope_decodes_to_what_the_library_would_have_given() -> None:
    cutter = opened()
    sink = watched(cutter, 1, "ours")
    frames = delivery(7, exchange="events", routing_key="orders.new", message_id="m", headers={"a": [1, None]})
    ((tag, redelivered, envelope, _, _),) = cutter.feed(b"".join(frames)).lists[sink]
    deliver, properties = decode("ours", tag, envelope, redelivered=bool(redelivered))
    method_read, header_read = frame.unmarshal(frames[0])[2], frame.unmarshal(frames[1])[2]
    assert isinstance(method_read, commands.Basic.Deliver)
    assert isinstance(header_read, header.ContentHeader)
    assert dict(deliver) == dict(method_read)
    assert dict(properties) == dict(header_read.properties)
