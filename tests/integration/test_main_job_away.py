"""A broker that cannot be reached: the daemon keeps trying, says why, goes on by itself, and can be stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.integration.main_job_pipelines import OneByOne
from tests.support.daemon import Daemon, daemon
from tests.support.eventually import eventually
from tests.support.main_job import Job, aside
from tests.support.proxy import FaultProxy

pytestmark = [pytest.mark.integration, pytest.mark.faults]

COUNT: Final = 500
#: Seconds that a daemon with nothing in hand may take to end.
FAST: Final = 3.0


@pytest.fixture
async def job(job: Job) -> Job:
    await job.publish(COUNT)
    return job


def through(proxy: FaultProxy, job: Job) -> str:
    """How a reason shows the way through the proxy."""
    return f"amqp://***@127.0.0.1:{proxy.port}/{job.broker.vhost}"


async def until_told(running: Daemon, *reasons: str) -> str:
    """Wait until ``/readyz`` gives these reasons; its whole answer."""
    wanted = {"ready": False, "pipelines": {"main": {"ready": False, "reasons": list(reasons)}}}

    def told() -> str | None:
        status, body = running.get("/readyz")
        return body if status == 503 and json.loads(body) == wanted else None

    async def asked() -> str | None:
        return await aside(told)

    return await eventually(asked, timeout=30, what=f"/readyz says {wanted}") or ""


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_daemon_started_before_its_broker_says_why_it_waits_and_then_consumes(
    tmp_path: Path, job: Job, proxy: FaultProxy, workers: int
) -> None:
    await proxy.refuse()
    settings = job.settings(OneByOne, url=job.broker.through(proxy.port))
    with daemon(tmp_path, settings, options=("--workers", str(workers))) as running:
        reason = (
            f"rabbitmq: cannot reach {through(proxy, job)}: connection refused; "
            "check host and port, and whether the broker runs"
        )
        answer = await until_told(
            running, *([reason] if workers == 1 else [f"worker {index}: {reason}" for index in range(workers)])
        )
        assert (await aside(running.get, "/livez"))[0] == 200
        assert await aside(running.total, "broadway_connection_up", pipeline="main") == 0

        await proxy.accept()

        await aside(running.until_ready)
        await job.until_noted(COUNT)
        await job.until_empty()
        assert await aside(running.total, "broadway_connection_up", pipeline="main") == 1
        await job.stopped_cleanly(running)
    assert job.counted.missing == []
    assert job.counted.duplicates == {}
    parts = urlsplit(job.broker.url)
    for secret in (parts.password, f"{parts.username}:"):
        assert str(secret) not in answer + "\n".join(running.lines)
    await job.broker.until_alone()


@pytest.mark.any_broker
async def test_a_daemon_between_two_attempts_stops_at_once(tmp_path: Path, job: Job, proxy: FaultProxy) -> None:
    await proxy.refuse()
    with daemon(tmp_path, job.settings(OneByOne, url=job.broker.through(proxy.port))) as running:
        await aside(running.until_logged, "the source is not available; trying again", count=3)
        code, seconds = await aside(running.terminated)
    assert code == 0
    assert seconds < FAST


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_daemon_whose_broker_does_not_answer_stops_at_once(
    tmp_path: Path, job: Job, proxy: FaultProxy, workers: int
) -> None:
    proxy.black_hole()
    settings = job.settings(OneByOne, url=job.broker.through(proxy.port))
    with daemon(tmp_path, settings, options=("--workers", str(workers))) as running:
        await proxy.until_connections(workers)
        reason = "rabbitmq: not connected yet"
        await until_told(
            running, *([reason] if workers == 1 else [f"worker {index}: {reason}" for index in range(workers)])
        )
        code, seconds = await aside(running.terminated)
    assert code == 0
    assert seconds < FAST
    await job.broker.until(ready=COUNT, unacked=0)
