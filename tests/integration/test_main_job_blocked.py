"""Handlers that never return, on a real broker: the process leaves in time, their messages are back on the queue."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py import Pipeline
from tests.integration.main_job_pipelines import (
    BlocksTheLoop,
    BlocksTheLoopWithBatch,
    SleepsInThread,
    SleepsInThreadWithBatch,
    SpinsInThread,
    SpinsInThreadWithBatch,
)
from tests.support.daemon import daemon
from tests.support.eventually import eventually
from tests.support.main_job import Job, aside

# What is looked at here is the same on every delivery path.
pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.delivery_path("fast")]

COUNT: Final = 50
#: Seconds that the drain may take, and those that the process may take on top of them.
TIMEOUT: Final = 2.0
GRACE: Final = 2.0
#: Seconds for the system to take the process down, on a busy machine.
SLACK: Final = 0.5
#: The exit code for a drain that ran out of time.
LATE: Final = 75


@pytest.fixture
async def job(job: Job) -> Job:
    await job.publish(COUNT)
    return job


async def until_all_are_back(job: Job) -> None:
    await job.broker.until(ready=COUNT, unacked=0)
    await job.broker.until("work.dead", ready=0, unacked=0)
    await job.broker.until_alone()


@pytest.mark.parametrize(
    ("pipeline", "workers"),
    [
        (SleepsInThread, 1),
        (SpinsInThread, 1),
        (BlocksTheLoop, 1),
        (BlocksTheLoop, 2),
        (SleepsInThreadWithBatch, 1),
        (SpinsInThreadWithBatch, 1),
        (BlocksTheLoopWithBatch, 1),
    ],
)
async def test_a_handler_that_never_returns_is_left_behind_at_the_deadline(
    tmp_path: Path, job: Job, pipeline: type[Pipeline[Any]], workers: int
) -> None:
    # So few that each worker gets some of them.
    settings = job.settings(pipeline, shutdown_timeout=TIMEOUT, producer={"prefetch_count": COUNT // 2})
    with daemon(tmp_path, settings, options=("--workers", str(workers))) as running:
        await job.until_noted(workers)
        await aside(running.until_logged, "listening")
        code, seconds = await aside(running.terminated)

    assert code == LATE
    assert seconds < TIMEOUT + GRACE + SLACK
    await until_all_are_back(job)


@pytest.mark.parametrize("pipeline", [SleepsInThread, SpinsInThread, BlocksTheLoop])
async def test_a_second_signal_does_not_wait_for_the_deadline(
    tmp_path: Path, job: Job, pipeline: type[Pipeline[Any]]
) -> None:
    with daemon(tmp_path, job.settings(pipeline, shutdown_timeout=60)) as running:
        await job.until_noted(1)
        running.signal(signal.SIGTERM)
        await aside(running.until_logged, "stopping")
        asked = time.monotonic()
        # Sooner it would be the same wish.
        await eventually(lambda: time.monotonic() - asked > 1.1, what="more than a second has passed")
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        code = await aside(running.exit_code)
        seconds = time.monotonic() - began

    assert code == LATE
    assert seconds < GRACE + SLACK
    await until_all_are_back(job)
