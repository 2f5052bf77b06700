"""``schema``: what the data must be, checked before ``prepare_messages``."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, Field

from broadway_py import Message, Pipeline
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import ONE, Recorder, finish, logged


class Order(BaseModel):
    customer: str
    amount: int = Field(gt=0)


class Orders(Pipeline[Order]):
    processors = ONE
    schema = Order

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.prepared: list[Any] = []
        self.handled: list[Any] = []

    async def prepare_messages(self, messages: list[Message[Order]]) -> None:
        self.prepared.append([message.data for message in messages])

    async def handle_message(self, message: Message[Order]) -> None:
        self.handled.append(message.data)


ADA = Order(customer="Ada", amount=3)


async def run_through(items: list[Any], **options: Any) -> tuple[Recorder, Orders]:
    recorder = Recorder()
    pipeline = Orders(producer=MemoryProducer(recorder.messages(items)), **options)
    await finish(pipeline)
    recorder.check_once()
    return recorder, pipeline


@pytest.mark.parametrize(
    "payload",
    [
        b'{"customer": "Ada", "amount": 3}',
        '{"customer": "Ada", "amount": 3}',
        bytearray(b'{"customer": "Ada", "amount": 3}'),
        {"customer": "Ada", "amount": 3},
        ADA,
    ],
)
async def test_the_handler_gets_the_parsed_object_and_the_payload_stays_in_raw(payload: Any) -> None:
    recorder, pipeline = await run_through([payload])

    assert pipeline.handled == [ADA]
    assert pipeline.prepared == [[ADA]]
    (message,) = recorder.calls[0].successful
    assert message.raw == payload


async def test_what_does_not_fit_fails_as_invalid_and_the_others_go_on() -> None:
    recorder, pipeline = await run_through(
        [b'{"customer": "Ada", "amount": 3}', b'{"customer": 7, "amount": -1}', b"no json", b'{"customer": "Ada"}']
    )

    assert pipeline.handled == [ADA]
    assert pipeline.prepared == [[ADA]]
    reasons = [recorder.statuses[data].reason for data in recorder.failed]
    assert reasons == [
        "does not fit the schema: customer: string_type; amount: greater_than",
        "does not fit the schema: the whole value: json_invalid",
        "does not fit the schema: amount: missing",
    ]
    assert {status.cause for status in recorder.statuses.values()} == {"invalid"}
    assert all(status.exception is None for status in recorder.statuses.values())


async def test_a_whole_chunk_of_invalid_data_reaches_no_callback() -> None:
    _, pipeline = await run_through([b"1", b"2"])

    assert (pipeline.prepared, pipeline.handled) == ([], [])


async def test_no_input_is_shown_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    recorder, _ = await run_through([b'{"customer": "canary-name", "amount": "canary-amount"}'])

    (status,) = recorder.statuses.values()
    assert "canary" not in status.reason
    assert "canary" not in repr(status)
    assert "canary" not in repr(logged(caplog, least=0))


async def test_more_than_five_complaints_are_cut_short() -> None:
    recorder, _ = await run_through([list("abcdefg")], schema=list[int])

    (message,) = recorder.calls[0].failed
    assert message.status is not None
    assert message.status.reason == (
        "does not fit the schema: 0: int_parsing; 1: int_parsing; 2: int_parsing; 3: int_parsing; 4: int_parsing; …"
    )


async def test_a_validator_that_raises_anything_fails_its_message_alone() -> None:
    def broken(value: int) -> int:
        if value == 2:
            raise ZeroDivisionError("canary")
        return value

    recorder, pipeline = await run_through([1, 2, 3], schema=Annotated[int, AfterValidator(broken)])

    assert pipeline.handled == [1, 3]
    assert recorder.statuses[2].reason == "the schema raised ZeroDivisionError"
    assert recorder.statuses[2].cause == "invalid"


@pytest.mark.parametrize(("schema", "payload", "expected"), [(int, b"3", 3), (list[int], b"[1, 2]", [1, 2])])
async def test_a_schema_may_be_any_type_that_pydantic_understands(schema: Any, payload: bytes, expected: Any) -> None:
    _, pipeline = await run_through([payload], schema=schema)

    assert pipeline.handled == [expected]
