"""What is made of what a handler gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, model_serializer

from broadway_py import Message
from broadway_py.pipeline.publishing.encoding import Encoding, Unfit
from broadway_py.publisher import Outgoing


def outgoing(item: Any, **options: Any) -> Outgoing:
    given: dict[str, Any] = {"key": None, "message_id": None, "headers": None, "content_type": None, **options}
    return Encoding(**{"pipeline": "shop", **given}).outgoing(item)


class Order(BaseModel):
    number: int
    at: datetime


@dataclass
class Line:
    item: str


@pytest.mark.parametrize(
    ("item", "data", "content_type"),
    [
        (b"\xff\x00", b"\xff\x00", None),
        (bytearray(b"ab"), b"ab", None),
        (memoryview(b"ab"), b"ab", None),
        ("größer", "größer".encode(), None),
        ("", b"", None),
        ({"a": [1, None]}, b'{"a":[1,null]}', "application/json"),
        (None, b"null", "application/json"),
        (Line("x"), b'{"item":"x"}', "application/json"),
        (
            Order(number=1, at=datetime(2026, 1, 1, tzinfo=UTC)),
            b'{"number":1,"at":"2026-01-01T00:00:00Z"}',
            "application/json",
        ),
    ],
)
def test_bytes_and_text_are_published_as_they_are_and_the_rest_as_json(
    item: Any, data: bytes, content_type: str | None
) -> None:
    for given in (item, Message(item)):
        made = outgoing(given)
        assert (made.data, made.content_type, made.message_id, made.key) == (data, content_type, None, None)


def test_of_a_message_the_id_and_the_media_type_are_taken_and_nothing_else() -> None:
    metadata = {"message_id": "m1", "content_type": "text/csv", "key": "k", "headers": {"x": "y"}}
    made = outgoing(Message("a;b", metadata))
    assert (made.message_id, made.content_type, made.key, made.headers) == ("m1", "text/csv", None, {})


def test_what_is_written_as_json_is_json_whatever_its_source_was() -> None:
    assert outgoing(Message({"a": 1}, {"content_type": "text/csv"})).content_type == "application/json"


def test_what_only_has_the_same_id_is_no_repetition() -> None:
    """Embedded queues, and some publishers, number their messages from 1."""
    first = Message(b"a", {"message_id": "1", "enqueued_at": 5.0})
    others = [
        outgoing(Message(b"b", {"message_id": "1", "enqueued_at": 5.0})),
        outgoing(Message(b"a", {"message_id": "1", "enqueued_at": 6.0})),
        outgoing(Message(b"a", {"message_id": "2", "enqueued_at": 5.0})),
        outgoing(first, pipeline="another"),
    ]
    assert len({outgoing(first).dedup_id, *(other.dedup_id for other in others)}) == 5
    assert outgoing(first).dedup_id == outgoing(Message(b"a", {"message_id": "1", "enqueued_at": 5.0})).dedup_id
    assert outgoing(first, message_id=lambda _: "m").dedup_id is None
    assert outgoing(Message(b"a")).dedup_id is None


@pytest.mark.parametrize("metadata", [{"message_id": 17}, {}])
def test_the_id_of_a_message_is_text(metadata: dict[str, Any]) -> None:
    assert outgoing(Message(b"", metadata)).message_id == (str(metadata["message_id"]) if metadata else None)


def test_options_are_texts_or_functions_of_the_item() -> None:
    given = Message({"country": "DE"}, {"message_id": "m1"})
    made = outgoing(
        given,
        key=lambda item: item.data["country"],
        message_id=lambda item: f"{item.id}:invoice",
        headers={"x": "y"},
        content_type="application/vnd.invoice+json",
    )
    assert (made.key, made.message_id, made.headers, made.content_type) == (
        "DE",
        "m1:invoice",
        {"x": "y"},
        "application/vnd.invoice+json",
    )
    assert outgoing(given, message_id=lambda _: None).message_id == "m1"


class Raising(BaseModel):
    @model_serializer
    def write(self) -> str:
        raise KeyError("canary")


def endless() -> Any:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (object, "an object cannot be written as JSON: give a value that pydantic can serialize, or bytes"),
        (
            lambda: {"x": b"\xff"},
            "a dict cannot be written as JSON: give a value that pydantic can serialize, or bytes",
        ),
        (endless, "a list cannot be written as JSON: give a value that pydantic can serialize, or bytes"),
        (Raising, "a Raising cannot be written as JSON: give a value that pydantic can serialize, or bytes"),
        (lambda: "\ud800", "a text has characters that UTF-8 does not have (lone surrogates)"),
    ],
)
def test_what_cannot_be_written_is_told_without_its_content(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(Unfit) as unfit:
        outgoing(make())
    assert str(unfit.value) == sentence
