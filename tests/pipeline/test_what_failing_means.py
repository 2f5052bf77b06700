"""Who decides what becomes of a failed message: the message, its source, or the policy. On the embedded queue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broadway_py import FailurePolicy, Message, Pipeline, RetryLater
from broadway_py.producers import QueueProducer
from broadway_py.queue import Queue
from tests.pipeline.support import outcomes
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
