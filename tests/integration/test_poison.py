"""A message that ends the process which handles it is found; its neighbours are not, counted from outside."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Pipeline
from broadway_py.queue import Queue
from tests.integration import poison_pipelines as poison
from tests.support.counter import ids_in, number_in
from tests.support.daemon import Daemon, Rows, daemon
from tests.support.eventually import eventually_sync
from tests.support.main_job import Job
from tests.support.rabbitmq import Counts

# What is looked at here is the same on every delivery path.
pytestmark = [pytest.mark.integration, pytest.mark.delivery_path("fast")]

COUNT = 10_000
ABORTS, ALLOCATES = 3_333, 6_666


POISON = {ABORTS: "abort", ALLOCATES: "allocate"}


def settings(folder: Path, pipeline: type[Pipeline[Any]], poisoned: dict[int, str]) -> Path:
    main = {
        "class": f"{pipeline.__module__}:{pipeline.__qualname__}",
        "producer": {"kind": "queue", "path": str(folder / "q.db"), "queue": "work"},
        "context": context(folder, poisoned),
    }
    path = folder / "poison.json"
    path.write_text(json.dumps({"pipelines": {"main": main}}))
    return path


def context(folder: Path, poisoned: dict[int, str]) -> dict[str, Any]:
    return {"handled": str(folder / "handled"), "failed": str(folder / "failed"), "poison": poisoned}


async def put(folder: Path, count: int) -> None:
    """*count* messages with their numbers as ids; the numbers start at one, as the queue's do."""
    payloads = [f"{number:012d}" for number in range(1, count + 1)]
    async with Queue(folder / "q.db", "work") as queue:
        for start in range(0, count, 1000):
            await queue.put_many(payloads[start : start + 1000])


def until_empty(folder: Path, timeout: float = 100.0) -> None:
    with closing(sqlite3.connect(folder / "q.db")) as database:

        def empty() -> bool:
            # Only whether there is one: to read them all again and again would keep the processes from their work.
            (found,) = database.execute("SELECT NOT EXISTS (SELECT 1 FROM messages)").fetchone()
            return bool(found)

        eventually_sync(empty, timeout=timeout, what="the queue is empty")


def until_more_are_handled(folder: Path, more: int) -> None:
    file = folder / "handled"
    before = number_in(file)
    eventually_sync(lambda: number_in(file) >= before + more, timeout=30, what=f"{more} more are handled")


def deaths(running: Daemon) -> list[dict[str, Any]]:
    return [line for line in running.log if line["event"] == "worker died; starting it again"]


def convictions(running: Daemon) -> list[dict[str, Any]]:
    wanted = "a message ends the workers that handle it; it will not be handled any more"
    return [line for line in running.log if line["event"] == wanted]


def handled(folder: Path) -> Counter[int]:
    return Counter(map(int, ids_in(folder / "handled")))


def failed(folder: Path) -> Counter[str]:
    return Counter(ids_in(folder / "failed"))


def assert_only_these_are_dead(folder: Path, count: int, dead: Sequence[int]) -> None:
    rows = Rows(folder / "q.db")
    assert rows.waiting == set()
    assert rows.dead == set(dead)
    assert set(handled(folder)) == set(range(1, count + 1)) - set(dead)


@pytest.mark.parametrize("pipeline", [poison.InLoop, poison.InThread, poison.InBatch])
async def test_two_poisonous_messages_of_ten_thousand_are_dead_lettered_after_four_deaths_at_most(
    tmp_path: Path, pipeline: type[Pipeline[Any]]
) -> None:
    await put(tmp_path, COUNT)

    with daemon(tmp_path, settings(tmp_path, pipeline, POISON), options=("--workers", "2")) as running:
        until_empty(tmp_path)
        code, _ = running.terminated()

    assert code == 0
    assert_only_these_are_dead(tmp_path, COUNT, [ABORTS, ALLOCATES])
    assert failed(tmp_path) == {f"{ABORTS:012d} worker_died": 1, f"{ALLOCATES:012d} worker_died": 1}
    assert 3 <= len(deaths(running)) <= 4
    told = {line["message_id"]: line for line in convictions(running)}
    assert told.keys() == {str(ABORTS), str(ALLOCATES)}
    assert told[str(ABORTS)]["deaths"] == told[str(ALLOCATES)]["deaths"] == 2
    assert told[str(ABORTS)]["exit"] == "killed by SIGABRT"
    assert told[str(ALLOCATES)]["exit"] == "killed by SIGKILL"


@pytest.mark.parametrize("policy", [{}, {"failure": None}], ids=["dead-lettered", "rejected"])
async def test_the_same_on_rabbitmq_which_redelivers_at_once(tmp_path: Path, job: Job, policy: dict[str, Any]) -> None:
    await job.publish(COUNT)
    file = job.settings(poison.InLoop, context=context(tmp_path, POISON), **policy)

    with daemon(tmp_path, file, options=("--workers", "2")) as running:
        await job.until_empty(timeout=100)
        await job.stopped_cleanly(running)

    dead = [ABORTS, ALLOCATES]
    assert set(handled(tmp_path)) == set(range(COUNT)) - set(dead)
    assert failed(tmp_path) == {f"{number:012d} worker_died": 1 for number in dead}
    assert 3 <= len(deaths(running)) <= 4
    assert await job.broker.counts("work.dead") == Counts(ready=2, unacked=0)


async def test_in_worker_processes_of_the_stages_it_costs_no_more_of_them(tmp_path: Path) -> None:
    await put(tmp_path, COUNT)

    with daemon(tmp_path, settings(tmp_path, poison.InProcess, POISON)) as running:
        until_empty(tmp_path)
        code, _ = running.terminated()

    assert code == 0
    assert_only_these_are_dead(tmp_path, COUNT, [ABORTS, ALLOCATES])
    assert failed(tmp_path) == {f"{ABORTS:012d} worker_died": 1, f"{ALLOCATES:012d} worker_died": 1}
    died = [line for line in running.log if line["event"] == "a worker process died"]
    assert 2 <= len(died) <= 4
    assert {line["exit"] for line in died} == {"killed by SIGABRT", "killed by SIGKILL"}


async def test_one_that_ends_its_worker_in_handle_failed_too_is_dead_lettered_without_being_told_of(
    tmp_path: Path,
) -> None:
    await put(tmp_path, 1000)

    with daemon(
        tmp_path, settings(tmp_path, poison.InHandleFailed, {500: "leave"}), options=("--workers", "2")
    ) as running:
        until_empty(tmp_path)
        code, _ = running.terminated()

    assert code == 0
    assert_only_these_are_dead(tmp_path, 1000, [500])
    assert [line["exit"] for line in deaths(running)] == ["exit code 3"] * 3
    assert len(convictions(running)) == 1


@pytest.mark.faults
async def test_workers_that_are_killed_from_outside_under_load_convict_nobody(tmp_path: Path) -> None:
    count, kills = 20_000, 6
    await put(tmp_path, count)

    with daemon(tmp_path, settings(tmp_path, poison.Innocent, {}), options=("--workers", "2")) as running:
        for number in range(1, kills + 1):
            until_more_are_handled(tmp_path, 50)
            os.kill(running.workers()[number % 2], signal.SIGKILL)
            running.until_logged("worker died; starting it again", count=number)
            running.until_logged("worker started", count=2 + number)
        until_empty(tmp_path)
        code, _ = running.terminated()

    assert code == 0
    assert_only_these_are_dead(tmp_path, count, [])
    assert failed(tmp_path) == {}
    assert [line["suspects"] for line in deaths(running)] != [0] * kills
    assert convictions(running) == []


async def test_a_worker_that_is_killed_while_it_has_nothing_to_do_accuses_nobody(tmp_path: Path) -> None:
    await put(tmp_path, 100)
    with daemon(tmp_path, settings(tmp_path, poison.InBatch, {}), options=("--workers", "2")) as running:
        until_empty(tmp_path)
        os.kill(running.workers()[0], signal.SIGKILL)
        died = running.until_logged("worker died; starting it again")
        running.terminated()

    assert died["suspects"] == 0
