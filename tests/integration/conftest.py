"""What the tests of the main job stand on: a queue on a real broker, a way to it that breaks, hands that count."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.gated_pipelines import Hands
from tests.support.counter import HandledIds
from tests.support.main_job import Job
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import RabbitMQ


@pytest.fixture
async def job(rabbitmq: RabbitMQ, tmp_path: Path) -> Job:
    await rabbitmq.declare_with_dead_letters()
    return Job(rabbitmq, tmp_path)


@pytest.fixture
async def hands(job: Job) -> AsyncIterator[Hands]:
    """With the gate open."""
    hands = Hands(HandledIds(job.handled))
    hands.gate.set()
    yield hands
    hands.ids.close()


@pytest.fixture
async def proxy(rabbitmq: RabbitMQ) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(*rabbitmq.address) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def the_client_library_logs_no_objects() -> Iterator[None]:
    """The records that pytest keeps would keep its channels alive, and what hangs on them."""
    chatty = logging.getLogger("aiormq.channel")
    chatty.setLevel(logging.ERROR)
    yield
    chatty.setLevel(logging.NOTSET)
