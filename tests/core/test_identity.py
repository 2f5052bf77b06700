"""Which message it is: the same for each delivery, another for each other message."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py import Message
from broadway_py._core.identity import (
    IDENTITY_BYTES,
    child_identity,
    given_identity,
    id_of,
    identities_by_id,
    identity_by_id,
    identity_of,
)


def message(data: Any, name: str | None = None, **metadata: Any) -> Message[Any]:
    return Message(data, metadata if name is None else {"message_id": name, **metadata})


@pytest.mark.parametrize(("data", "name"), [(b"payload", "7"), (b"payload", None), ("text", None), ({"a": 1}, "7")])
def test_each_delivery_of_a_message_has_the_same_identity(data: Any, name: str | None) -> None:
    first, again = message(data, name), message(data, name, redelivered=True)
    again.attempt = 2

    identity = identity_of(first, "orders")

    assert identity is not None
    assert len(identity) == IDENTITY_BYTES
    assert identity_of(again, "orders") == identity


def test_what_handlers_do_to_the_data_does_not_change_it() -> None:
    one = message(b"payload", "7")
    before = identity_of(one, "orders")

    one.data = {"parsed": True}

    assert identity_of(one, "orders") == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (message(b"payload", "7"), message(b"payload", "8")),
        # Some publishers give all their messages one id.
        (message(b"payload", "7"), message(b"another", "7")),
        (message(b"x" * 2000, "7"), message(b"x" * 2001, "7")),
        (message(b"payload"), message(b"another")),
        (message(b"x" * 2000 + b"a"), message(b"x" * 2000 + b"b")),
        (message(b"payload"), message(b"payload", "None\0")),
    ],
)
def test_other_messages_have_others(one: Message[Any], other: Message[Any]) -> None:
    assert identity_of(one, "orders") != identity_of(other, "orders")


def test_the_same_message_in_another_pipeline_has_another() -> None:
    assert identity_of(message(b"payload", "7"), "orders") != identity_of(message(b"payload", "7"), "invoices")


def test_of_a_named_message_only_the_size_and_the_beginning_of_the_payload_count() -> None:
    assert identity_of(message(b"x" * 2000 + b"a", "7"), "orders") == identity_of(
        message(b"x" * 2000 + b"b", "7"), "orders"
    )


def test_an_object_without_a_name_has_none() -> None:
    assert identity_of(message({"a": 1}), "orders") is None


@pytest.mark.parametrize("data", [bytearray(b"payload"), memoryview(b"payload"), "payload"])
def test_bytes_are_bytes_in_whatever_dress(data: Any) -> None:
    assert identity_of(message(data), "orders") == identity_of(message(b"payload"), "orders")


@pytest.mark.parametrize("metadata", [None, ["message_id"], {"message_id": object()}])
def test_metadata_that_a_handler_has_replaced_is_none(metadata: Any) -> None:
    one = message(b"payload", "7")
    one.metadata = metadata

    assert identity_of(one, "orders") == identity_of(message(b"payload"), "orders")


def test_text_that_cannot_be_encoded_has_one_all_the_same() -> None:
    assert identity_of(message("\ud800", "\udfff"), "orders") is not None


class Unreadable(Message[Any]):
    @property
    def id(self) -> str | None:
        raise ValueError("deleted")


@pytest.mark.parametrize(
    ("one", "shown"),
    [
        (message(b"x", "7"), "7"),
        (message(b"x"), None),
        (message(b"x", "n" * 300), "n" * 200 + "… (100 more characters)"),
        (Unreadable(b"x"), None),
    ],
    ids=["named", "unnamed", "long", "unreadable"],
)
def test_in_the_log_it_is_called_what_its_source_calls_it(one: Message[Any], shown: str | None) -> None:
    assert id_of(one) == shown


# --- by the source's id alone


class Renamed(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another in each process"


class Numbered(int):
    def __repr__(self) -> str:
        return "another in each process"

    __str__ = __repr__


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (message(b"payload", "7"), message(b"payload", "7", redelivered=True)),
        (message(b"payload", "7"), message(b"payload", Renamed("7"))),
        (Message(b"payload", {"message_id": 7}), Message(b"payload", {"message_id": Numbered(7)})),
        (message(b"x" * 2000 + b"a", "7"), message(b"x" * 2000 + b"b", "7")),
        (message("payload", "7"), message(bytearray(b"payload"), "7")),
        (message(b"payload", "7"), message(memoryview(b"payload"), "7")),
        (message("\ud800", "\udfff"), message("\ud800", "\udfff")),
        (message({"a": 1}, "7"), message({"a": 2}, "7")),
    ],
)
def test_the_same_id_and_payload_are_the_same_message(one: Message[Any], same: Message[Any]) -> None:
    identity = identity_by_id(one, "orders")

    assert identity is not None
    assert len(identity) == IDENTITY_BYTES
    assert identity_by_id(same, "orders") == identity


def test_another_id_producer_size_or_payload_is_another_message() -> None:
    others = [
        (message(b"payload", "7"), "orders"),
        (message(b"payload", "7"), "invoices"),
        (message(b"payload", "7"), None),
        (message(b"payload", "8"), "orders"),
        (message(b"Payload", "7"), "orders"),
        (message(b"x" * 2000, "7"), "orders"),
        (message(b"x" * 2001, "7"), "orders"),
        (message({"a": 1}, "7"), "orders"),
        (Message(b"payload", {"message_id": b"7"}), "orders"),
        (Message(b"payload", {"message_id": 10**5000}), "orders"),
    ]

    assert len({identity_by_id(*other) for other in others} - {None}) == len(others)


def test_it_is_the_same_in_the_next_version_of_the_library() -> None:
    # State files keep identities over an upgrade.
    assert identity_by_id(message(b"payload", "m1"), "orders") == bytes.fromhex("fb458ef44da48373b3eff0896dcb17cf")


def test_of_many_messages_each_has_the_identity_that_it_has_alone() -> None:
    messages = [message(b"payload", "7"), message("text", "8"), message({"a": 1}, "9"), message(b"payload")]

    assert identities_by_id(messages, "orders") == [identity_by_id(one, "orders") for one in messages]
    assert identities_by_id(messages[:1], "invoices") == [identity_by_id(messages[0], "invoices")]


@pytest.mark.parametrize("name", [None, "", b"", 1.5, object(), ["7"]])
def test_without_an_id_there_is_none_whatever_the_payload(name: object) -> None:
    assert identity_by_id(Message(b"payload", {"message_id": name}), "orders") is None


def test_a_payload_that_cannot_be_read_is_left_out() -> None:
    view = memoryview(b"payload")
    one = message(view, "7")
    view.release()

    assert identity_by_id(one, "orders") is not None
    del one.raw
    assert identity_by_id(one, "orders") is not None


def test_children_have_the_identity_of_their_number() -> None:
    parents = bytes(16), b"\1" + bytes(15)

    assert len({child_identity(parent, number) for parent in parents for number in (0, 1, 11)} | set(parents)) == 8
    assert child_identity(parents[0], 1) == child_identity(parents[0], 1)


def test_a_given_identity_is_by_its_text_or_its_bytes() -> None:
    assert given_identity("7") == given_identity("7")
    assert len({given_identity("7"), given_identity(b"7"), given_identity("8"), given_identity("\ud800")} - {None}) == 4
    assert (given_identity(""), given_identity(b"")) == (None, None)
