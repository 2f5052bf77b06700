"""The daemon while its broker is in trouble: it says so on its pages, ends in time, and may be killed at any moment."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.main_job_pipelines import InBatches, OneByOne, RaisesOnEveryTenth, is_tenth
from tests.integration.storms import MISSING_QUEUE, own_node
from tests.support.daemon import Daemon, daemon
from tests.support.eventually import eventually
from tests.support.main_job import Job, aside
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import Counts

pytestmark = [pytest.mark.integration, pytest.mark.faults]

#: Messages before and after the trouble.
COUNT: Final = 500
#: Seconds that a daemon with nothing in hand may take to end.
FAST: Final = 3.0


# --- what the pages say -----------------------------------------------------------------------------------------------


@dataclass
class Scene:
    """A daemon at work, and what stands between it and its broker."""

    job: Job
    proxy: FaultProxy
    running: Daemon


Act = Callable[[Scene], Awaitable[object]]


async def shut_and_cut(scene: Scene) -> None:
    await scene.proxy.refuse()
    scene.proxy.cut()


async def open_again(scene: Scene) -> None:
    await scene.proxy.accept()


async def silence(scene: Scene) -> None:
    scene.proxy.black_hole()


async def sound(scene: Scene) -> None:
    scene.proxy.reset()
    scene.proxy.heal()


async def delete_queue(scene: Scene) -> None:
    await scene.job.broker.delete_queue()


async def declare_queue(scene: Scene) -> None:
    await scene.job.broker.declare_with_dead_letters()


async def stop_broker(scene: Scene) -> None:
    await asyncio.to_thread(own_node(scene.job.broker).stop_application)


async def start_broker(scene: Scene) -> None:
    await asyncio.to_thread(own_node(scene.job.broker).start_application)


@pytest.mark.parametrize(
    ("breaks", "mends", "told"),
    [
        pytest.param(shut_and_cut, open_again, r"cannot reach \S+: connection refused; .*", id="refused"),
        pytest.param(
            silence, sound, r"\S+ has sent nothing, not even a heartbeat, for 6 s|no answer from .*", id="silent"
        ),
        pytest.param(delete_queue, declare_queue, MISSING_QUEUE, id="queue-deleted"),
        pytest.param(
            stop_broker,
            start_broker,
            r"cannot reach \S+: connection refused; .*|the connection to \S+ broke while it was set up .*"
            r"|\S+ closed the connection as soon as the login began; .*"
            r"|cannot reach \S+: connection reset by peer; .*",
            id="broker-stopped",
        ),
    ],
)
async def test_readyz_and_metrics_tell_of_the_trouble_and_of_its_end(
    tmp_path: Path, job: Job, proxy: FaultProxy, *, breaks: Act, mends: Act, told: str
) -> None:
    await job.publish(COUNT)
    producer = {"heartbeat": "1s", "connect_timeout": "2s"}
    settings = job.settings(OneByOne, url=job.broker.through(proxy.port), producer=producer)
    with daemon(tmp_path, settings) as running:
        scene = Scene(job, proxy, running)
        await job.until_noted(COUNT)
        await job.until_empty()
        assert await aside(running.total, "broadway_connection_up", pipeline="main") == 1
        try:
            await breaks(scene)
            await until_ready_says(running, rf"rabbitmq: (?:{told})")
            assert await aside(running.total, "broadway_connection_up", pipeline="main") == 0
            assert await aside(running.total, "broadway_connections_lost_total", pipeline="main") == 1
            assert (await aside(running.get, "/livez"))[0] == 200
        finally:
            await mends(scene)
        await aside(running.until_ready)
        assert await aside(running.total, "broadway_connection_up", pipeline="main") == 1
        await job.publish(COUNT)
        await job.until_noted(2 * COUNT)
        await job.until_empty()
        await job.broker.until_connected(1)
        await job.stopped_cleanly(running)
    assert job.counted.missing == []
    assert job.counted.duplicates == {}
    await job.broker.until_connected(0)


async def until_ready_says(running: Daemon, pattern: str) -> None:
    """Wait until ``/readyz`` gives this one reason."""

    def told() -> bool:
        status, body = running.get("/readyz")
        if status == 200:
            return False
        (reason,) = json.loads(body)["pipelines"]["main"]["reasons"]
        return re.fullmatch(pattern, reason) is not None

    await eventually(lambda: aside(told), timeout=40, what=f"/readyz says {pattern!r}")


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kills",
    [
        # Seven daemons, one after the other: on a busy machine each takes long to start.
        pytest.param(6, marks=pytest.mark.timeout(300)),
        pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(0)]),
    ],
    ids=["six", "twenty"],
)
async def test_kills_at_random_moments_under_load_cost_no_message(tmp_path: Path, job: Job, *, kills: int) -> None:
    seed = int(os.environ.get("SOAK_SEED", str(random.SystemRandom().randrange(1 << 32))))
    chance, prefetch, round_size = random.Random(seed), 200, 3_000
    print(f"kills: seed {seed}")
    settings = job.settings(InBatches, producer={"prefetch_count": prefetch}, processors={"concurrency": 4})
    published = 0
    for _ in range(kills):
        workers = chance.choice((1, 1, 2))
        with daemon(tmp_path, settings, options=("--workers", str(workers))) as running:
            publishing = asyncio.create_task(job.publish(round_size))
            published += round_size
            # At once, when it has not even connected, or anywhere among its messages.
            await job.until_noted(job.notes + chance.choice((0, chance.randrange(round_size))))
            os.killpg(running.process.pid, signal.SIGKILL)
            assert await aside(running.exit_code) == -signal.SIGKILL
            await publishing
        await job.broker.until_connected(0)
    with daemon(tmp_path, settings) as running:
        await job.until_empty()
        await job.stopped_cleanly(running)
    assert len(job.counted.published) == published
    assert job.counted.missing == []
    assert job.counted.strangers == []
    # At most what the broker had handed out, to at most two workers, came again.
    assert sum(times - 1 for times in job.counted.duplicates.values()) <= kills * prefetch * 2
    assert await job.broker.counts("work.dead") == Counts(0, 0)
    await job.broker.until_connected(0)


# --- SIGTERM in every state -------------------------------------------------------------------------------------------


async def refused(scene: Scene) -> None:
    await aside(scene.running.until_logged, "the source is not available; trying again", count=2)


async def connecting(scene: Scene) -> None:
    await scene.proxy.until_connections(1, timeout=40)


async def paused(scene: Scene) -> None:
    await scene.job.until_noted(1)
    assert await aside(scene.running.post, "/api/pipelines/main/pause") == 200
    await until_ready_says(scene.running, "paused")


async def rate_limited(scene: Scene) -> None:
    await scene.job.until_noted(10)
    await scene.job.broker.until(ready=COUNT - 10 - 100, unacked=100)


async def full_batches(scene: Scene) -> None:
    await scene.job.broker.until(ready=COUNT - 100, unacked=100)
    await aside(scene.running.until_ready)
    received = partial(scene.running.total, "broadway_messages_received_total")

    async def all_here() -> bool:
        return await aside(received) == 100

    # The broker counts what is still on its way, and what is not here at the stop goes back.
    await eventually(all_here, what="the daemon has received 100 messages")


async def under_a_memory_alarm(scene: Scene) -> None:
    await scene.job.until_noted(1)


@dataclass(frozen=True)
class State:
    """Something that a daemon may be in the middle of."""

    reach: Act
    section: dict[str, Any]
    #: How many messages have been handled when it ends; None: any number.
    handled: int | None


STATES: Final = {
    "refused": State(refused, {}, 0),
    "connecting": State(connecting, {}, 0),
    "paused": State(paused, {"rate_limit": {"allowed_messages": 20, "interval": "100ms"}}, None),
    "rate-limited": State(rate_limited, {"rate_limit": {"allowed_messages": 10, "interval": "1h"}}, 10),
    "full-batches": State(full_batches, {"batchers": {"default": {"batch_size": 1_000, "batch_timeout": "1h"}}}, 100),
    "blocked": State(under_a_memory_alarm, {"rate_limit": {"allowed_messages": 20, "interval": "100ms"}}, None),
}


@pytest.mark.parametrize("name", STATES)
async def test_sigterm_ends_it_in_time_and_leaves_nothing_unacknowledged_while(
    tmp_path: Path, job: Job, proxy: FaultProxy, name: str
) -> None:
    state = STATES[name]
    await job.publish(COUNT)
    if name == "refused":
        await proxy.refuse()
    elif name == "connecting":
        proxy.black_hole()
    settings = job.settings(
        InBatches if name == "full-batches" else OneByOne,
        url=job.broker.through(proxy.port),
        producer={"prefetch_count": 100},
        **state.section,
    )
    with ExitStack() as alarm, daemon(tmp_path, settings) as running:
        if name == "blocked":
            alarm.enter_context(own_node(job.broker).memory_alarm())
        await state.reach(Scene(job, proxy, running))
        code, seconds = await aside(running.terminated)
    assert (code, seconds < FAST) == (0, True), f"exit code {code} after {seconds:.1f} s\n" + "\n".join(running.lines)
    proxy.heal()
    await job.broker.until_connected(0)
    handled = job.notes
    if state.handled is not None:
        assert handled == state.handled
    assert job.counted.duplicates == {}
    # Whatever was not handled waits on the queue; whatever was is not there any more.
    await job.broker.until(ready=COUNT - handled, unacked=0)
    assert await job.broker.counts("work.dead") == Counts(0, 0)


async def test_sigterm_while_failed_messages_cannot_be_put_away_ends_it_at_the_deadline(
    tmp_path: Path, job: Job
) -> None:
    count, timeout = 50, 2.0
    node = own_node(job.broker)
    await job.publish(count)
    # While the alarm lasts, the broker does not read from who publishes: it notices by the heartbeat that one is gone.
    producer = {"heartbeat": "1s"}
    settings = job.settings(RaisesOnEveryTenth, producer=producer, shutdown_timeout=timeout, failure={"attempts": 1})
    with node.memory_alarm(), daemon(tmp_path, settings) as running:
        await job.until_noted(count // 3)
        code, seconds = await aside(running.terminated)
        # Whoever publishes is blocked, so the failed ones cannot be made safe, and it says that it left them.
        assert (code, seconds < timeout + FAST) == (75, True), "\n".join(running.lines)
        await job.broker.until_connected(0)
        await job.broker.until(ready=count - job.notes, unacked=0)
    with daemon(tmp_path, settings) as running:
        await job.until_empty()
        await job.stopped_cleanly(running)
    assert sorted(job.counted.handled) == sorted(one for one in job.counted.published if not is_tenth(one))
    assert job.counted.duplicates == {}
    dead = await job.broker.counts("work.dead")
    # One whose confirm was lost with the process may be there twice.
    assert count // 10 <= dead.ready <= 2 * count // 10
