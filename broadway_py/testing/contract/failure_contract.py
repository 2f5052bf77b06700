"""Who decides about a failed message, the same for every producer: driven through a pipeline, counted from outside.

It is for producers with a setting ``on_failure``. Subclass it beside the producer contract; the fixture ``source`` is
then a :class:`FailureSource`.
"""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pytest

from broadway_py.errors import RetryLater
from broadway_py.message import Message
from broadway_py.options import FailurePolicy
from broadway_py.pipeline import Pipeline
from broadway_py.producer_description import AnyProducer
from broadway_py.testing.contract.source import SourceUnderTest
from broadway_py.testing.driving import until_equal

__all__ = ["FailureContract", "FailureSource"]


class FailureSource(SourceUnderTest):
    """A source that can be told what to do with failed messages."""

    #: The ``on_failure`` by which a failed message is forgotten.
    forget: str

    @abc.abstractmethod
    def told(self, on_failure: str | None) -> AnyProducer:
        """A new description, told no more about failures than this ``on_failure``; None: nothing."""


class Failing(Pipeline[bytes]):
    """Does to each message what its context says."""

    context: Callable[[Message[bytes]], None]

    async def handle_message(self, message: Message[bytes]) -> None:
        self.context(message)


def fails(message: Message[bytes]) -> None:
    raise ValueError


def fails_once(message: Message[bytes]) -> None:
    if message.attempt == 1:
        raise ValueError


def asks_for_another_delivery(message: Message[bytes]) -> None:
    if message.attempt == 1:
        raise RetryLater(after=0.0)
    raise ValueError


#: Dead letters at once.
GIVEN = FailurePolicy(attempts=1, breaker=None)


class Case(NamedTuple):
    """Who says that failed messages are forgotten, and what comes of it."""

    expected: Mapping[str, int]
    source: bool = False
    message: bool = False
    policy: Mapping[str, Any] = {}
    handler: Callable[[Message[bytes]], None] = fails


CASES = {
    "nobody, so the default policy decides": Case({"retried": 1, "acked": 1}, handler=fails_once),
    "a policy that was given": Case({"dead_lettered": 1}, policy={"failure": GIVEN}),
    "the source, before the default policy": Case({"dropped": 1}, source=True),
    "the source, after a policy that was given": Case({"dead_lettered": 1}, source=True, policy={"failure": GIVEN}),
    "the source, and there is no policy": Case({"dropped": 1}, source=True, policy={"failure": None}),
    "the message, before the default policy": Case({"dropped": 1}, message=True),
    "the message, before a policy that was given": Case({"dropped": 1}, message=True, policy={"failure": GIVEN}),
    "the source, after a handler that wants another delivery": Case(
        {"retried": 1, "dropped": 1}, source=True, handler=asks_for_another_delivery
    ),
}


async def _outcomes(pipeline: Pipeline[Any]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for producer in pipeline.stats().producers:
        total.update(producer.outcomes)
    return dict(+total)


class FailureContract:
    """The suite. Each test gets a source of its own through the fixture ``source``."""

    @pytest.mark.parametrize("case", [pytest.param(case, id=who) for who, case in CASES.items()])
    async def test_of_those_who_say_what_failing_means_the_one_closest_to_the_message_counts(
        self, source: FailureSource, case: Case
    ) -> None:
        def handle(message: Message[bytes]) -> None:
            if case.message:
                message.configure_ack(on_failure=source.forget)
            case.handler(message)

        await source.publish([b"one"])
        producer = source.told(source.forget if case.source else None)
        async with Failing(producer=producer, context=handle, **case.policy) as pipeline:
            await until_equal(partial(_outcomes, pipeline), dict(case.expected), "the pipeline counts the outcomes")
        await source.expect(ready=0, held=0, rejected=case.expected.get("dead_lettered", 0))
