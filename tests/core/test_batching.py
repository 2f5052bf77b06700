"""Open batches: what closes them, with which trigger, and that every message comes out exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broadway_py._core.batching import Batch, OpenBatches
from broadway_py.message import BatchInfo, Message
from tests.support.conformance import conforms


def message(data: Any = 0, key: Any = "default", *, size: int = 0, flush: bool = False) -> Message[Any]:
    made = Message(data)
    made.batch_key = key
    made.size = size
    made.batch_mode = "flush" if flush else "bulk"
    return made


def messages(count: int, **how: Any) -> list[Message[Any]]:
    return [message(data, **how) for data in range(count)]


def told(batches: list[Batch]) -> list[tuple[list[Any], Any, str]]:
    """Data, key and trigger of each batch."""
    return [([m.data for m in batch.messages], batch.info.batch_key, batch.info.trigger) for batch in batches]


# --- size -----------------------------------------------------------------------------------------------------------


def test_a_batch_closes_when_it_is_full() -> None:
    batches = OpenBatches("b", 3, 1.0)

    assert told(batches.add(messages(2), 0.0)) == []
    assert told(batches.add(messages(5), 0.1)) == [([0, 1, 0], "default", "size"), ([1, 2, 3], "default", "size")]
    assert batches.count == 1


def test_a_batch_says_what_it_is() -> None:
    batches = OpenBatches("late", 1, 1.0, partition_of=lambda m: m.data % 4)

    (batch,) = batches.add([message(6, key=("de", 1))], 0.0)

    assert batch.info == BatchInfo(batcher="late", batch_key=("de", 1), partition=2, size=1, trigger="size")


def test_keys_fill_batches_of_their_own() -> None:
    batches = OpenBatches("b", 2, 1.0)
    mixed = [message(data, key="odd" if data % 2 else "even") for data in range(5)]

    assert told(batches.add(mixed, 0.0)) == [([0, 2], "even", "size"), ([1, 3], "odd", "size")]
    assert batches.count == 1


def test_one_key_in_two_partitions_is_two_batches() -> None:
    batches = OpenBatches("b", 2, 1.0, partition_of=lambda m: m.data % 2)

    closed = batches.add(messages(4), 0.0)

    assert [([m.data for m in batch.messages], batch.info.partition) for batch in closed] == [([0, 2], 0), ([1, 3], 1)]


def test_equal_keys_share_a_batch_as_in_a_dict() -> None:
    batches = OpenBatches("b", 3, 1.0)

    assert told(batches.add([message("a", key=1), message("b", key=1.0), message("c", key=True)], 0.0)) == [
        (["a", "b", "c"], 1, "size")
    ]


# --- time -----------------------------------------------------------------------------------------------------------


def test_a_batch_leaves_its_time_after_its_first_message() -> None:
    batches = OpenBatches("b", 10, 2.0)
    assert batches.next_deadline() is None

    batches.add(messages(1), 100.0)
    batches.add(messages(1), 101.5)

    assert batches.next_deadline() == 102.0
    assert told(batches.expire(101.9)) == []
    assert told(batches.expire(102.0)) == [([0, 0], "default", "timeout")]
    assert (batches.next_deadline(), batches.count) == (None, 0)


def test_each_key_has_its_own_time() -> None:
    batches = OpenBatches("b", 10, 2.0)
    batches.add([message(1, key="a")], 0.0)
    batches.add([message(2, key="b")], 1.0)
    batches.add([message(3, key="a")], 1.5)

    assert told(batches.expire(2.5)) == [([1, 3], "a", "timeout")]
    assert batches.next_deadline() == 3.0
    assert told(batches.expire(3.0)) == [([2], "b", "timeout")]


def test_what_is_left_of_a_run_that_filled_a_batch_begins_to_wait_now() -> None:
    batches = OpenBatches("b", 2, 5.0)
    batches.add(messages(1), 0.0)

    batches.add(messages(2), 4.0)

    assert batches.next_deadline() == 9.0


# --- flush ----------------------------------------------------------------------------------------------------------


def test_a_message_in_flush_mode_takes_the_waiting_ones_with_it() -> None:
    batches = OpenBatches("b", 10, 1.0)
    batches.add([message("waiting")], 0.0)

    assert told(batches.add([message("flush", flush=True)], 0.5)) == [(["waiting", "flush"], "default", "flush")]
    assert batches.next_deadline() is None


def test_a_flush_comes_at_the_end_of_the_run_of_its_key() -> None:
    batches = OpenBatches("b", 10, 1.0)
    run = [message("a", "x", flush=True), message("b", "x"), message("c", "y"), message("d", "x")]

    assert told(batches.add(run, 0.0)) == [(["a", "b"], "x", "flush")]
    assert batches.count == 2


def test_size_wins_over_flush_in_the_same_run() -> None:
    batches = OpenBatches("b", 2, 1.0)

    assert told(batches.add(messages(2, flush=True), 0.0)) == [([0, 1], "default", "size")]
    assert told(batches.add(messages(3, flush=True), 0.0)) == [([0, 1], "default", "size"), ([2], "default", "flush")]


def test_flushing_everything_closes_each_open_batch() -> None:
    batches = OpenBatches("b", 10, 1.0)
    batches.add([message(1, "x"), message(2, "y")], 0.0)

    assert told(batches.flush()) == [([1], "x", "flush"), ([2], "y", "flush")]
    assert (batches.flush(), batches.count) == ([], 0)


def test_the_batch_that_has_waited_longest_can_be_flushed_alone() -> None:
    batches = OpenBatches("b", 10, 1.0)
    batches.add([message(1, "x"), message(2, "y"), message(3, "x")], 0.0)

    assert told(batches.flush_oldest()) == [([1, 3], "x", "flush")]
    assert told(batches.flush_oldest()) == [([2], "y", "flush")]
    assert batches.flush_oldest() == []


def test_messages_can_be_taken_out_without_a_batch() -> None:
    batches = OpenBatches("b", 10, 1.0)
    batches.add([message(1, "x"), message(2, "y"), message(3, "x")], 0.0)

    assert [m.data for m in batches.take_all()] == [1, 3, 2]
    assert (batches.count, batches.next_deadline(), batches.flush()) == (0, None, [])


# --- bytes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "closed", "left"),
    [
        ([4, 4, 4], [([4, 4], "bytes")], 1),  # the third would have been too much
        ([4, 6], [([4, 6], "bytes")], 0),  # exactly full
        ([4, 11, 4], [([4], "bytes"), ([11], "bytes")], 1),  # larger than a batch may be: alone
        ([11], [([11], "bytes")], 0),
        ([0, 0, 11], [([0, 0], "bytes"), ([11], "bytes")], 0),
        ([1, 1, 1, 1, 1], [([1, 1, 1, 1], "size")], 1),
        ([3, 3, 3, 1], [([3, 3, 3, 1], "size")], 0),  # both at once: it is full
    ],
)
def test_bytes_are_a_hard_ceiling(sizes: list[int], closed: list[tuple[list[int], str]], left: int) -> None:
    batches = OpenBatches("b", 4, 1.0, max_bytes=10)

    done = batches.add([message(size=size) for size in sizes], 0.0)

    assert [([m.size for m in batch.messages], batch.info.trigger) for batch in done] == closed
    assert batches.count == left


def test_bytes_are_counted_for_each_key() -> None:
    batches = OpenBatches("b", 100, 1.0, max_bytes=10)

    assert batches.add([message(1, "x", size=6), message(2, "y", size=6)], 0.0) == []
    assert told(batches.add([message(3, "x", size=6)], 0.0)) == [([1], "x", "bytes")]


# --- a function for batch_size --------------------------------------------------------------------------------------


def up_to(most: int) -> Callable[[Message[Any], int], tuple[str, int]]:
    """Sums the data; at *most* or more the batch leaves, and what is over is carried into the next one."""

    def split(one: Message[Any], total: int) -> tuple[str, int]:
        total += one.data
        return ("emit", total - most) if total >= most else ("cont", total)

    return split


@conforms("B-046")
def test_a_function_closes_the_batches_of_two_keys_on_their_own() -> None:
    batches = OpenBatches("b", (0, up_to(10)), 1.0)
    data = [message(3, "x"), message(10, "y"), message(3, "x"), message(4, "x"), message(1, "y")]

    assert told(batches.add(data, 0.0)) == [([10], "y", "size"), ([3, 3, 4], "x", "size")]
    assert batches.count == 1


def test_the_accumulator_of_an_emit_is_where_the_next_batch_of_its_key_begins() -> None:
    batches = OpenBatches("b", (0, up_to(10)), 1.0)

    assert told(batches.add([message(17, "x")], 0.0)) == [([17], "x", "size")]  # 7 is carried
    assert told(batches.add([message(4, "y")], 0.0)) == []
    assert told(batches.add([message(3, "x")], 0.0)) == [([3], "x", "size")]


@pytest.mark.parametrize("close", ["timeout", "flush"])
def test_after_a_batch_that_no_emit_closed_the_function_begins_anew(close: str) -> None:
    batches = OpenBatches("b", (0, up_to(10)), 1.0)
    batches.add([message(9)], 0.0)

    assert len(batches.expire(1.0) if close == "timeout" else batches.flush()) == 1
    assert batches.add([message(9)], 2.0) == []


def test_flush_mode_overrules_the_function() -> None:
    batches = OpenBatches("b", (0, up_to(10)), 1.0)

    assert told(batches.add([message(1), message(2, flush=True)], 0.0)) == [([1, 2], "default", "flush")]


def test_a_function_and_a_ceiling_of_bytes_work_together() -> None:
    batches = OpenBatches("b", (0, up_to(3)), 1.0, max_bytes=10)
    sized = [message(1, size=6), message(1, size=6), message(1, size=1), message(1, size=1)]

    assert [(len(batch.messages), batch.info.trigger) for batch in batches.add(sized, 0.0)] == [
        (1, "bytes"),
        (3, "size"),
    ]


# --- functions of the user that go wrong ----------------------------------------------------------------------------


def refused(batches: OpenBatches) -> list[tuple[Any, str, str]]:
    return [(each.message.data, type(each.error).__name__, str(each.error)) for each in batches.refused]


def test_a_raising_batch_size_function_refuses_that_message_alone() -> None:
    def split(one: Message[Any], total: int) -> tuple[str, int]:
        if one.data == "bad":
            raise KeyError("weight")
        return ("emit" if total == 1 else "cont"), total + 1

    batches = OpenBatches("b", (0, split), 1.0)

    assert told(batches.add([message("bad"), message("a"), message("bad"), message("b")], 0.0)) == [
        (["a", "b"], "default", "size")
    ]
    assert refused(batches) == [("bad", "KeyError", "'weight'")] * 2
    assert (batches.count, batches.next_deadline()) == (0, None)


def unpack_two(pair: Any) -> None:
    _, _ = pair


def pythons_words(call: Callable[[], object]) -> str:
    """What this Python says when *call* fails: each version words it anew."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  # whichever it is
        return str(error)
    raise AssertionError("it did not fail")


@pytest.mark.parametrize(
    ("returned", "error", "sentence"),
    [
        (("stop", 0), "ValueError", "the batch_size function returned 'stop'; expected 'emit' or 'cont'"),
        (("emit", 0, 1), "ValueError", pythons_words(lambda: unpack_two(("emit", 0, 1)))),
        (None, "TypeError", "cannot unpack non-iterable NoneType object"),
    ],
)
def test_a_wrong_answer_of_a_batch_size_function_refuses_that_message(returned: Any, error: str, sentence: str) -> None:
    batches = OpenBatches("b", (0, lambda _, __: returned), 1.0)

    assert batches.add([message("one")], 0.0) == []
    assert refused(batches) == [("one", error, sentence)]
    assert (batches.count, batches.next_deadline()) == (0, None)


def test_a_raising_partition_function_refuses_that_message_alone() -> None:
    def partition_of(one: Message[Any]) -> int | None:
        return 6 // int(one.data)

    batches = OpenBatches("b", 2, 1.0, partition_of=partition_of)

    assert told(batches.add([message(6), message(0), message(6)], 0.0)) == [([6, 6], "default", "size")]
    assert refused(batches) == [(0, "ZeroDivisionError", pythons_words(lambda: 6 // 0))]


def test_a_key_that_cannot_be_hashed_refuses_that_message_alone() -> None:
    batches = OpenBatches("b", 2, 1.0)

    assert told(batches.add([message(1), message(2, key=["x"]), message(3)], 0.0)) == [([1, 3], "default", "size")]
    assert refused(batches) == [
        (
            2,
            "TypeError",
            (
                "message.batch_key is a list, which is not hashable (TypeError: unhashable type: 'list'); "
                "expected a key such as text, a number, or a tuple of them"
            ),
        )
    ]


def test_a_carried_accumulator_outlives_a_refused_message() -> None:
    def split(message: Message[Any], total: int) -> tuple[str, int]:
        total += message.data
        return ("emit", total - 10) if total >= 10 else ("cont", total)

    batches = OpenBatches("b", (0, split), 1.0)
    assert len(batches.add([Message(17)], 0.0)) == 1  # 7 is carried
    batches.add([Message(None)], 0.0)  # refused, as the first of the next batch

    assert len(batches.add([Message(3)], 0.0)) == 1
