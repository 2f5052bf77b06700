"""Twenty kills while messages are consumed, published and acked. Only ``make soak`` selects it.

``make soak ARGS="-k publishing"``: ``SOAK_SEED`` repeats the moments of an earlier run; ``SOAK_LOG`` names a file that
gets a line about the run. ``SOAK_MINUTES`` has no effect: the number of messages says how long it takes.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.relays import names
from tests.integration.test_publishing_killed import embedded, of_sqs, rabbit
from tests.support.localstack import SQS
from tests.support.rabbitmq import RabbitMQ
from tests.support.soak_log import note

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(0)]

MESSAGES: Final = 20_000
MESSAGES_OF_SQS: Final = 2_000
KILLS: Final = 20


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("SOAK_SEED", str(random.SystemRandom().randrange(1 << 32))))


async def relay(what: str, count: int, seed: int, relaying: Coroutine[Any, Any, Counter[str]]) -> Counter[str]:
    """What has arrived of *count* messages; a line about it in the log of soak runs."""
    began = time.monotonic()
    arrived = await relaying
    note(
        minutes=(time.monotonic() - began) / 60,
        what=f"consume, publish, ack: {what}",
        seed=seed,
        published=count,
        faults=KILLS,
        repeated=arrived.total() - len(arrived),
        lost=count - len(arrived),
        grown=None,
    )
    return arrived


async def test_publishing_to_an_embedded_queue_repeats_nothing(tmp_path: Path, seed: int) -> None:
    relaying = embedded(tmp_path, count=MESSAGES, kills=KILLS, seed=seed)
    arrived = await relay("embedded queue", MESSAGES, seed, relaying)
    assert arrived == Counter(names(MESSAGES)), f"SOAK_SEED={seed}"


@pytest.mark.delivery_path("fast")  # what the pipeline in the other process chooses
async def test_publishing_to_rabbitmq_loses_nothing(tmp_path: Path, rabbitmq: RabbitMQ, seed: int) -> None:
    relaying = rabbit(tmp_path, rabbitmq, count=MESSAGES, kills=KILLS, seed=seed)
    arrived = await relay("RabbitMQ", MESSAGES, seed, relaying)
    assert arrived.keys() == set(names(MESSAGES)), f"SOAK_SEED={seed}"


async def test_publishing_to_sqs_loses_nothing(tmp_path: Path, sqs: SQS, seed: int) -> None:
    relaying = of_sqs(tmp_path, sqs, count=MESSAGES_OF_SQS, kills=KILLS, seed=seed)
    arrived = await relay("SQS", MESSAGES_OF_SQS, seed, relaying)
    assert arrived.keys() == set(names(MESSAGES_OF_SQS)), f"SOAK_SEED={seed}"
