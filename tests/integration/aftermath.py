"""What must hold after every fault, in one place: consumption goes on by itself, nothing was lost or left behind."""

from __future__ import annotations

import asyncio
import gc
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from broadway_py import Message, Pipeline
from broadway_py.producers.rabbitmq import RabbitMQProducer
from tests.integration.gated_pipelines import PREFETCH, assert_each_delivery_settled, assert_none_lost
from tests.pipeline.support import check_books, in_flight, logged
from tests.support.eventually import eventually
from tests.support.main_job import Job
from tests.support.rabbitmq import Counts

__all__ = ["reasons", "unharmed", "until_connected", "until_lost", "until_told", "waits"]

#: Messages that come when all is over.
_AFTERWARDS: Final = 200


@asynccontextmanager
async def unharmed(
    pipeline: Pipeline[Any], job: Job, *, copies: int = 1, forgets_acks: bool = False
) -> AsyncIterator[None]:
    """Run *pipeline*, whose producer has so many *copies*; the block breaks something, and mends it.

    Afterwards: what was and what will be published is handled, counted from outside; each delivery was settled once,
    and by the connection it came through; each copy has one connection, one channel and one consumer at the broker; the
    pipeline knows that it was away, and that it is not any more. After its end: no connection, no task and no object of
    a connection or a message is left. With *forgets_acks* the broker itself crashes, and may bring again what was
    acked.
    """
    tasks, objects = asyncio.all_tasks(), _alive()
    async with pipeline:
        yield
        await job.publish(_AFTERWARDS)
        await job.until_empty()
        assert_none_lost(job)
        await job.broker.until_connected(copies)
        # The broker knows of the last consumer a moment before we have heard that it does.
        await until_connected(pipeline, copies)
        assert (pipeline.stats().trouble, pipeline.stats().restarts) == (None, 0)
        check_books(pipeline)
    check_books(pipeline)
    assert in_flight(pipeline) == 0
    # What was in hand at a loss came again, and only that.
    losses = pipeline.stats().producers[0].connections_lost
    if not forgets_acks:
        assert sum(times - 1 for times in job.counted.duplicates.values()) <= losses * PREFETCH
    assert_each_delivery_settled(pipeline, job)
    assert await job.broker.counts("work.dead") == Counts(0, 0)
    assert await job.broker.counts() == Counts(0, 0)
    await job.broker.until_connected(0)
    await eventually(lambda: asyncio.all_tasks() <= tasks, what="the pipeline's tasks have ended")
    kept = _alive() - objects
    assert not kept, f"objects of connections that have ended, or their messages, are kept: {dict(kept)}"


def _alive() -> Counter[str]:
    """Messages, and objects of the RabbitMQ producer other than what users hold, by their class."""
    gc.collect()
    found: Counter[str] = Counter()
    for one in gc.get_objects():
        kind = type(one)
        module = str(getattr(kind, "__module__", ""))
        if issubclass(kind, Message) or (
            module.startswith("broadway_py.producers.rabbitmq.") and "options" not in module
        ):
            found[kind.__qualname__] += 1
    # The description is the pipeline's for good.
    del found[RabbitMQProducer.__qualname__]
    return found


async def until_lost(pipeline: Pipeline[Any], count: int = 1) -> None:
    """Wait until *pipeline* has noticed that it lost so many connections since its start.

    It counts them. That it is away it says for as long as it is, which may be a moment that nobody sees.
    """
    await eventually(
        lambda: pipeline.stats().producers[0].connections_lost >= count, timeout=30, what="the loss is noticed"
    )


async def until_connected(pipeline: Pipeline[Any], copies: int = 1) -> None:
    """Wait until *copies* of its producer are connected, where nothing breaks any more."""
    await eventually(
        lambda: pipeline.stats().producers[0].connected == copies, timeout=60, what=f"{copies} are connected"
    )


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Why the source was away, each time, as the log told."""
    return [
        str(line["reason"]) for line in logged(caplog) if line["event"] == "the source is not available; trying again"
    ]


def waits(caplog: pytest.LogCaptureFixture) -> list[float]:
    """How long the pipeline waits before each further attempt, in seconds, as the log told."""
    return [float(line["wait_seconds"]) for line in logged(caplog) if "wait_seconds" in line]


async def until_told(caplog: pytest.LogCaptureFixture, pattern: str, *, timeout: float = 30.0) -> None:
    """Wait until the log gave a reason that is this *pattern* from its beginning to its end."""
    await eventually(
        lambda: any(re.fullmatch(pattern, reason) for reason in reasons(caplog)),
        timeout=timeout,
        what=f"the log says {pattern!r}",
    )
