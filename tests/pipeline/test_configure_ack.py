"""``message.configure_ack``: how one message will be settled, in the words of its acknowledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broadway_py import Acknowledger, Message, Pipeline, ack_immediately
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import ONE, Quiet, Recorder, finish, running, soon
from tests.support.conformance import conforms


class Configures(Pipeline[Any]):
    """Calls what the test wrote."""

    processors = ONE

    def __init__(self, configure: Callable[[Message[Any]], None], **options: Any) -> None:
        super().__init__(**options)
        self.configure = configure

    async def handle_message(self, message: Message[Any]) -> None:
        self.configure(message)


@conforms("B-058")
async def test_the_options_reach_the_acknowledger_and_the_message_then_succeeds() -> None:
    recorder = Recorder()
    messages = [recorder.message(1, detail="old"), recorder.message(2)]

    def configure(message: Message[Any]) -> None:
        if message.data == 1:
            message.configure_ack(on_failure="ack", delay=3)

    assert await finish(Configures(configure, producer=MemoryProducer(messages))) == {"acked": 2}
    assert recorder.options == [("old", {"on_failure": "ack", "delay": 3})]
    assert messages[0].acknowledgement.data == {"was": "old", "on_failure": "ack", "delay": 3}
    assert messages[1].acknowledgement.data is None


@conforms("B-057")
async def test_an_acknowledger_that_takes_no_options_fails_the_message_and_says_what_to_do() -> None:
    class Plain(Acknowledger):
        def __init__(self) -> None:
            self.inner = Recorder()

        async def ack(self, ref: Any, successful: Any, failed: Any) -> None:
            await self.inner.ack(ref, successful, failed)

    plain = Plain()
    message = plain.inner.message(1)
    message._acknowledgement = message.acknowledgement._replace(acknowledger=plain)

    def configure(given: Message[Any]) -> None:
        given.configure_ack(on_failure="ack")

    assert await finish(Configures(configure, producer=MemoryProducer([message]))) == {"rejected": 1}
    assert plain.inner.statuses[1].reason == (
        "TypeError: configure_ack(on_failure): Plain takes no options; "
        "remove the call, or use a producer whose acknowledger has configure()"
    )


def test_a_message_that_nobody_settles_takes_no_options() -> None:
    with pytest.raises(TypeError) as refused:
        Message(1).configure_ack(on_success="ack", delay=2)

    assert str(refused.value) == (
        "configure_ack(on_success, delay): the no-op acknowledger takes no options; "
        "remove the call, or use a producer whose acknowledger has configure()"
    )


async def test_what_configure_raises_is_raised_in_the_callback() -> None:
    class Strict(Recorder):
        def configure(self, ref: Any, data: Any, options: Any) -> Any:
            raise ValueError("on_failure takes 'ack' or 'reject', got 'later'")

    recorder = Strict()

    def configure(given: Message[Any]) -> None:
        given.configure_ack(on_failure="later")

    assert await finish(Configures(configure, producer=MemoryProducer(recorder.messages([1])))) == {"rejected": 1}
    assert recorder.statuses[1].reason == "ValueError: on_failure takes 'ack' or 'reject', got 'later'"


async def test_after_the_message_was_settled_it_changes_nothing_at_the_source() -> None:
    recorder = Recorder()

    class Late(Pipeline[Any]):
        processors = ONE

        async def handle_message(self, message: Message[Any]) -> None:
            await ack_immediately(message)
            message.configure_ack(on_failure="ack")

    assert await finish(Late(producer=MemoryProducer(recorder.messages([1])))) == {"acked": 1}
    recorder.check_once()


async def test_a_submitted_message_takes_options_and_keeps_them_for_the_caller() -> None:
    def configure(given: Message[Any]) -> None:
        given.configure_ack(test_option="value")

    pipeline = Configures(configure, producer=Quiet.producer)
    async with running(pipeline):
        message = await soon(pipeline.submit(1))

    assert message.ok
    assert message.acknowledgement.acknowledger.configured == [{"test_option": "value"}]
