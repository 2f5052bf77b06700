"""The message: what it shows, what it refuses, and how its settlement is configured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from broadway_py._core.ledger import Ledger, LedgerEntry
from broadway_py.acknowledger import Acknowledger, NoopAcknowledger
from broadway_py.message import (
    CLAIMED,
    NOOP,
    OPEN,
    SETTLED,
    Acknowledgement,
    BatchInfo,
    Failed,
    Message,
    messages_of,
)

#: What a new message does not have: whoever needs it sets it.
UNSET = ["_at_work", "_identity", "_trace"]


def test_a_new_message_is_ok_unsettled_and_goes_to_the_default_batcher_in_bulk() -> None:
    message = Message(b"abc")

    assert (message.data, message.raw, message.size) == (b"abc", b"abc", 3)
    assert (message.status, message.ok, message.settled) == (None, True, False)
    assert (message.batcher, message.batch_key, message.batch_mode) == ("default", "default", "bulk")
    assert (message.metadata, message.attempt, message.producer, message.id) == ({}, None, None, None)
    assert message.acknowledgement == NOOP == Acknowledgement(None, None, None)


def test_each_message_has_metadata_of_its_own() -> None:
    first, second = Message(1), Message(2)

    first.metadata["seen"] = True

    assert second.metadata == {}


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"abc", 3),
        (bytearray(b"abcd"), 4),
        (memoryview(b"abcde"), 5),
        ("aé€", 6),
        ("\udc80", 3),
        ({"a": 1}, 0),
        (12, 0),
        (None, 0),
    ],
)
def test_the_size_is_that_of_the_payload_in_bytes(data: Any, size: int) -> None:
    assert Message(data).size == size


@pytest.mark.parametrize("data", [b"bytes", "täxt", memoryview(b"view"), 7, None, {"a": 1}, (1.0, 2), object()])
def test_messages_of_a_list_are_as_the_constructor_makes_them(data: Any) -> None:
    acknowledgement = Acknowledgement(NoopAcknowledger(), "ref", None)
    made = Message(data, None, acknowledgement)

    several = messages_of([data, data], acknowledgement)

    assert len(several) == 2
    assert several[0].metadata is not several[1].metadata
    for message in several:
        assert type(message) is Message
        unset = [name for name in Message.__slots__ if not hasattr(message, name)]
        assert unset == [name for name in Message.__slots__ if not hasattr(made, name)] == UNSET
        for name in set(Message.__slots__) - set(UNSET):
            assert getattr(message, name) == getattr(made, name), name


def test_replacing_the_data_keeps_what_was_received() -> None:
    message = Message(b"1")

    message.data = b"2 and more"

    assert (message.raw, message.size) == (b"1", 1)


def test_a_message_has_no_room_for_anything_else() -> None:
    with pytest.raises(AttributeError, match=r"^'Message' object has no attribute 'header'"):
        Message(1).header = "x"  # type: ignore[attr-defined]  # that is what is tested


def test_messages_are_told_apart_by_identity() -> None:
    assert Message(1) != Message(1)
    assert len({Message(1), Message(1)}) == 2


def test_a_message_names_the_producer_whose_books_hold_it() -> None:
    message = Message(b"x")
    message._ledger_entry = LedgerEntry(Ledger("orders.1"), 0.0)

    assert message.producer == "orders.1"


@pytest.mark.parametrize(("metadata", "name"), [({}, None), ({"message_id": None}, None), ({"message_id": 7}, "7")])
def test_a_message_is_called_what_its_source_calls_it(metadata: dict[str, Any], name: str | None) -> None:
    assert Message(1, metadata).id == name


@pytest.mark.parametrize(("station", "settled"), [(OPEN, False), (CLAIMED, False), (SETTLED, True)])
def test_a_message_is_settled_only_once_its_acknowledger_was_told(station: int, settled: bool) -> None:
    message = Message(1)
    message._settlement = station

    assert message.settled is settled


# --- status ---------------------------------------------------------------------------------------------------------


def test_failing_a_message_raises_nothing_and_keeps_the_reason() -> None:
    message = Message(1)

    message.fail("no stock")

    assert message.status == Failed("failed", "no stock", None)
    assert not message.ok


def test_a_reason_that_is_no_text_becomes_text() -> None:
    message = Message(1)

    message.fail(ValueError("no stock"))  # type: ignore[arg-type]  # a type checker would refuse it; Python does not

    assert message.status == Failed("failed", "no stock")


def test_a_status_can_be_set_and_taken_back() -> None:
    message = Message(1)

    message.status = Failed("late")
    assert not message.ok
    message.status = None
    assert message.ok


def test_a_status_that_is_no_failed_is_refused() -> None:
    message = Message(1)

    with pytest.raises(TypeError) as refused:
        message.status = "failed"  # type: ignore[assignment]  # that is what is tested

    assert str(refused.value) == "message.status takes None or a Failed, got str; use message.fail(reason)"
    assert message.ok


@pytest.mark.parametrize("mode", ["bulk", "flush"])
def test_the_batch_mode_can_be_set(mode: Any) -> None:
    message = Message(1)

    message.batch_mode = mode

    assert message.batch_mode == mode


def test_an_unknown_batch_mode_is_refused() -> None:
    message = Message(1)

    with pytest.raises(ValueError, match=r"^batch_mode takes 'bulk' or 'flush', got 'now'$"):
        message.batch_mode = "now"  # type: ignore[assignment]  # that is what is tested

    assert message.batch_mode == "bulk"


# --- quiet about data -----------------------------------------------------------------------------------------------


def test_no_text_about_a_message_shows_its_payload() -> None:
    message = Message("geheim", {"message_id": "m-1", "token": "geheim"}, Acknowledgement(object(), "geheim", "geheim"))

    assert repr(message) == str(message) == "<Message id='m-1' producer=None size=6 ok>"


def test_no_text_about_a_failed_message_shows_its_reason_or_its_exceptions_text() -> None:
    message = Message(b"geheim")
    message.status = Failed("raised", "geheim", ValueError("geheim"))

    assert repr(message) == "<Message id=None producer=None size=6 Failed(raised, ValueError)>"
    assert repr(message.status) == str(message.status) == "Failed(raised, ValueError)"
    assert str(Failed("late", "geheim")) == "Failed(late)"


# --- configure_ack --------------------------------------------------------------------------------------------------


class Till(Acknowledger):
    async def ack(self, ref: Any, successful: Any, failed: Any) -> None:
        raise NotImplementedError

    def configure(self, ref: Any, data: Any, options: Mapping[str, Any]) -> Any:
        if options.keys() != {"on_failure"}:
            raise ValueError(f"till knows on_failure, got {', '.join(options)}")
        return (ref, data, dict(options))


def test_configuring_changes_the_data_of_this_messages_acknowledgement_alone() -> None:
    till = Till()
    message, neighbour = (Message(1, acknowledgement=Acknowledgement(till, "ref", "data")) for _ in range(2))

    message.configure_ack(on_failure="reject")

    assert message.acknowledgement == Acknowledgement(till, "ref", ("ref", "data", {"on_failure": "reject"}))
    assert neighbour.acknowledgement == Acknowledgement(till, "ref", "data")


def test_what_the_acknowledger_refuses_is_raised_and_changes_nothing() -> None:
    message = Message(1, acknowledgement=Acknowledgement(Till(), "ref", "data"))

    with pytest.raises(ValueError, match=r"^till knows on_failure, got on_sucess$"):
        message.configure_ack(on_sucess="ack")

    assert message.acknowledgement.data == "data"


@pytest.mark.parametrize(
    ("acknowledgement", "name"),
    [(NOOP, "the no-op acknowledger"), (Acknowledgement(NoopAcknowledger()), "NoopAcknowledger")],
)
def test_an_acknowledger_without_options_is_named_with_what_to_do(acknowledgement: Acknowledgement, name: str) -> None:
    message = Message(1, acknowledgement=acknowledgement)

    with pytest.raises(TypeError) as refused:
        message.configure_ack(on_failure="reject", on_success="ack")

    assert str(refused.value) == (
        f"configure_ack(on_failure, on_success): {name} takes no options; "
        "remove the call, or use a producer whose acknowledger has configure()"
    )


def test_a_batch_info_cannot_be_changed() -> None:
    info = BatchInfo("default", "default", None, 3, "size")

    with pytest.raises(AttributeError) as refused:
        info.size = 4  # type: ignore[misc]  # that is what is tested

    assert str(refused.value) == "cannot assign to field 'size'"
