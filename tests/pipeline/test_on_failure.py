"""Who decides what becomes of a failed message: the message, its source, or the policy. On the embedded queue."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest

from broadway_py import FailurePolicy, Message, Pipeline, RetryLater
from broadway_py.abilities import Ability
from broadway_py.producers import MemoryProducer, QueueProducer
from broadway_py.queue import Queue
from tests.pipeline.support import Recorder, finish, logged, outcomes
from tests.support.eventually import eventually


class Failing(Pipeline[bytes]):
    context: Callable[[Message[bytes]], None]

    async def handle_message(self, message: Message[bytes]) -> None:
        self.context(message)


def fail(message: Message[bytes]) -> None:
    raise ValueError


def drop_me(message: Message[bytes]) -> None:
    message.configure_ack(on_failure="drop")
    raise ValueError


def keep_me(message: Message[bytes]) -> None:
    message.configure_ack(on_failure="dead_letter")
    raise ValueError


def once_more(message: Message[bytes]) -> None:
    if message.attempt == 1:
        raise RetryLater(after=0.0)
    raise ValueError


GIVEN = FailurePolicy(attempts=1, breaker=None)


@pytest.mark.parametrize(
    ("handler", "on_failure", "policy", "expected"),
    [
        pytest.param(fail, "drop", {}, {"dropped": 1}, id="the source goes before the default policy"),
        pytest.param(fail, "drop", {"failure": GIVEN}, {"dead_lettered": 1}, id="a given policy goes before it"),
        pytest.param(fail, "drop", {"failure": None}, {"dropped": 1}, id="without a policy the source decides"),
        pytest.param(fail, None, {"failure": GIVEN}, {"dead_lettered": 1}, id="nobody else said anything"),
        pytest.param(drop_me, None, {}, {"dropped": 1}, id="the message goes before the default policy"),
        pytest.param(drop_me, None, {"failure": GIVEN}, {"dropped": 1}, id="the message goes before a given policy"),
        pytest.param(keep_me, "drop", {}, {"dead_lettered": 1}, id="the message goes before the source"),
        pytest.param(
            once_more, "drop", {}, {"retried": 1, "dropped": 1}, id="who asks for another delivery gets it first"
        ),
    ],
)
async def test_what_was_said_closest_to_the_message_counts(
    tmp_path: Path,
    handler: Callable[[Message[bytes]], None],
    on_failure: Any,
    policy: dict[str, Any],
    expected: dict[str, int],
) -> None:
    async with Queue(tmp_path / "q.db", "orders") as queue:
        await queue.put_many([b"one"])
        producer = QueueProducer(tmp_path / "q.db", "orders", on_failure=on_failure)
        async with Failing(producer=producer, context=handler, **policy) as pipeline:
            await eventually(lambda: outcomes(pipeline) == expected, what=f"the outcomes are {expected}")
        assert len(await queue.dead_letters()) == expected.get("dead_lettered", 0)


class DeadLettering(Recorder):
    """Rejects what fails, unless it is told to keep it as a dead letter."""

    def __init__(self) -> None:
        super().__init__()
        self.dead: list[object] = []

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        self.dead += [message.data for message in messages]


async def test_where_an_acknowledger_cannot_say_whether_a_message_was_configured_the_policy_decides(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Confused(DeadLettering):
        def on_failure_is_configured(self, data: Any) -> bool:
            raise KeyError(data)

    recorder = Confused()
    pipeline = Failing(producer=MemoryProducer(recorder.messages([b"one"])), context=fail, failure=GIVEN)
    assert await finish(pipeline) == {"dead_lettered": 1}
    (line,) = [line for line in logged(caplog) if str(line["event"]).startswith("an acknowledger")]
    assert line["event"] == "an acknowledger raised an error when asked who decides about a failed message"
    assert line["exception"] == "KeyError"


@pytest.mark.parametrize(("abilities", "expected"), [({"dead_letter"}, "dead_lettered"), (set(), "rejected")])
async def test_a_policy_uses_only_what_an_acknowledger_declares(abilities: set[Ability], expected: str) -> None:
    class Declaring(DeadLettering):
        pass

    Declaring.abilities = frozenset(abilities)
    recorder = Declaring()
    pipeline = Failing(producer=MemoryProducer(recorder.messages([b"one"])), context=fail, failure=GIVEN)
    assert await finish(pipeline) == {expected: 1}
    assert (recorder.dead, recorder.failed) == (([b"one"], []) if abilities else ([], [b"one"]))
