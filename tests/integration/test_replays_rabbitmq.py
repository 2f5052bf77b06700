"""Dead letters on a real RabbitMQ that are put back as a client of the HTTP port asks for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from broadway_py.daemon.dead_letters import replays
from broadway_py.daemon.dead_letters.replays import Replays
from broadway_py.daemon.settings.settings import read_settings
from tests.integration.failing_pipelines import dead_letters
from tests.integration.test_dlq_rabbitmq import settings_file
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.any_broker]


def replays_of(folder: Path, broker: RabbitMQ, **producer: object) -> Replays:
    settings = read_settings([settings_file(folder, broker, **producer)], environ={})
    return Replays(lambda: settings)


async def test_only_as_many_as_wanted_are_fetched_and_put_back(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare()
    await rabbitmq.declare("work.dead")
    await rabbitmq.publish([b"%d" % number for number in range(7)], queue="work.dead")
    work = replays_of(tmp_path, rabbitmq)

    assert await work.replay("orders", None, 3) == (3, None)
    await rabbitmq.until_ready(4, "work.dead")
    await rabbitmq.until_ready(3)

    assert await work.replay("orders", "rabbitmq", 100) == (4, None)
    assert await work.replay("orders", None, 100) == (0, None)
    await rabbitmq.until_ready(0, "work.dead")
    assert [message.body for message in await dead_letters(rabbitmq, "work")] == [b"%d" % number for number in range(7)]


async def test_each_queue_of_a_producer_has_its_own(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    for queue in ("work", "o2"):
        await rabbitmq.declare(queue)
        await rabbitmq.declare(f"{queue}.dead")
        await rabbitmq.publish([queue.encode()] * 2, queue=f"{queue}.dead")
    bindings = [{"exchange": "events", "queue": "work"}]
    work = replays_of(tmp_path, rabbitmq, queue=["work", "o2"], bindings=bindings)

    assert await work.replay("orders", None, 3) == (3, None)

    await rabbitmq.until_ready(2, "work")
    await rabbitmq.until_ready(1, "o2")
    await rabbitmq.until_ready(1, "o2.dead")


async def test_a_queue_that_is_away_is_told_and_nothing_is_lost(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare("work.dead")
    await rabbitmq.publish([b"one", b"two"], queue="work.dead")

    moved, trouble = await replays_of(tmp_path, rabbitmq).replay("orders", None, 100)

    assert moved == 0
    assert trouble == f"2 dead letters were not put back: there is no queue 'work' on {rabbitmq.where}"
    await rabbitmq.until_ready(2, "work.dead")


async def test_a_replay_that_is_cut_off_loses_none(
    rabbitmq: RabbitMQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "_PORTION", 1)
    await rabbitmq.declare()
    await rabbitmq.declare("work.dead")
    letters = [b"%d" % number for number in range(300)]
    await rabbitmq.publish(letters, queue="work.dead")
    work = asyncio.create_task(replays_of(tmp_path, rabbitmq).replay("orders", None, 1000))

    async def has_begun() -> bool:
        return bool(await rabbitmq.ready())

    await eventually(has_begun, what="the first ones are back")
    work.cancel()
    await asyncio.wait({work})
    assert work.cancelled()

    back = [message.body for message in await dead_letters(rabbitmq, "work")]
    left = [message.body for message in await dead_letters(rabbitmq, "work.dead")]
    assert left, "it had not ended yet"
    twice = [body for body, count in Counter(back + left).items() if count > 1]
    assert sorted({*back, *left}) == sorted(letters)
    # The portion that was at work may be in both.
    assert len(twice) <= 1
