"""Random kills on a Ray cluster, and a slow reader of an endless flow. ``make soak ARGS="-k ray"``."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from broadway_py import Flow
from broadway_py.errors import FlowFailed
from broadway_py.flow.running.runners.calls import MOST_OPEN
from tests.flow.processes import works
from tests.flow.processes.test_soak import MIB, memory_of
from tests.flow.runners.ray.test_faults import LIMIT_S, left
from tests.support.eventually import eventually
from tests.support.ray_cluster import living_workers

pytestmark = [pytest.mark.ray, pytest.mark.soak, pytest.mark.timeout(0)]

ROUNDS: Final = 20
#: Seconds after the begin of a flow in which something is killed. A flow takes about as long.
KILL_S: Final = 4.0
SEED: Final = int(os.environ.get("RAY_KILLS_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)


class Outcome(NamedTuple):
    """What came of a kill."""

    told: str
    #: From the kill to the outcome; None: the program was killed, or the flow had ended before.
    seconds: float | None


def slow(number: int) -> int:
    time.sleep(0.001)
    return number


def exchange(_: Path) -> Flow[Any]:
    return Flow.from_iterable(range(4_000), max_demand=8).map(slow).partition(key=works.same, max_demand=8).map(slow)


def files(folder: Path) -> Flow[Any]:
    path = folder / "words.txt"
    if not path.exists():
        path.write_text("".join(f"word {number % 500}\n" for number in range(2_000_000)))
    return Flow.from_files(path, range_bytes=50_000).map(len).map(str).count_by()


def windows(_: Path) -> Flow[Any]:
    return Flow.from_iterable(range(4_000), max_demand=8).map(slow).count_by()


FLOWS: Final[dict[str, Callable[[Path], Flow[Any]]]] = {"exchange": exchange, "files": files, "windows": windows}

PROGRAM: Final = """
import sys
from pathlib import Path
from tests.flow.runners.ray.test_soak import FLOWS
print("begins", flush=True)
print(len(FLOWS[sys.argv[1]](Path(sys.argv[2])).using("ray", workers=2).to_list()))
"""


@pytest.fixture
def choose() -> random.Random:
    print(f"\nRAY_KILLS_SEED={SEED}")
    return random.Random(SEED)


async def test_whatever_is_killed_and_whenever_there_is_one_error_and_nothing_is_left(
    choose: random.Random, ray_cluster: Any, tmp_path: Path
) -> None:
    before = left()
    found: list[float] = []
    for number in range(ROUNDS):
        what = choose.choice(["worker", "raylet", "program"])
        flow, delay = choose.choice(list(FLOWS)), choose.uniform(0.0, KILL_S)
        if what == "program":
            outcome = await program_killed(flow, delay, tmp_path)
        else:
            # Ray takes some seconds to notice that the node of the round before is gone, and would use it.
            outcome = await flow_with(ray_cluster, f"round {number}", what, FLOWS[flow](tmp_path), delay)
        print(f"{number:2} {what:8} {flow:9} after {delay:4.1f} s: {outcome.seconds or 0:5.2f} s  {outcome.told[:150]}")
        if outcome.seconds is not None:
            found.append(outcome.seconds)
            assert outcome.seconds < LIMIT_S
            assert re.match("Ray worker [01] on node .* has died: |ray: worker [01] could not start: ", outcome.told)
        await eventually(lambda: left() == before, timeout=60, what="nothing of the flow was left")
    print(f"{len(found)} errors; seconds from the kill: median {statistics.median(found):.2f}, most {max(found):.2f}")


async def program_killed(flow: str, delay: float, folder: Path) -> Outcome:
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, flow, str(folder)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert running.stdout is not None
    with running.stdout as output:
        await asyncio.to_thread(output.readline)
        await asyncio.sleep(delay)
        running.kill()
        told = await asyncio.to_thread(output.read)
    running.wait()
    return Outcome(f"gave {told.strip()} results before" if told else "was killed", None)


async def flow_with(cluster: Any, name: str, what: str, flow: Flow[Any], delay: float) -> Outcome:
    """Runs a flow on a node of its own, and kills that, or a worker, meanwhile."""
    node = cluster.add_node(num_cpus=2, resources={name: 2}, object_store_memory=100 * MIB)
    running = asyncio.create_task(flow.using("ray", workers=2, resources={name: 1}).to_list_async())
    try:
        await asyncio.wait({running}, timeout=delay)
        begin = time.monotonic()
        if what == "raylet":
            raylet = node.all_processes["raylet"][0].process
            raylet.kill()
            raylet.wait()
        else:
            await eventually(lambda: living_workers() or running.done(), what="there was a worker")
            begin = time.monotonic()
            for worker in list(living_workers())[:1]:
                os.kill(worker, signal.SIGKILL)
        had_ended = running.done()
        try:
            given = len(await running)
        except FlowFailed as error:
            return Outcome(str(error), time.monotonic() - begin)
        return Outcome(f"gave {given} results{' before' if had_ended else ', of which all were on their way'}", None)
    finally:
        cluster.remove_node(node, allow_graceful=False)


# --- a slow reader

#: Seconds that an endless flow runs, and those at its beginning in which its memory may still grow.
ENDLESS_S: Final = 60.0
WARM_S: Final = 15.0

READER: Final = """
import time
from itertools import count
from broadway_py import Flow

words = Flow.from_iterable(count()).map(lambda number: str(number % 1_000))
taken = 0
for result in words.partition().map(len).using("ray", workers=2):
    taken += 1
    if taken == 1:
        print("begins", flush=True)
        end = time.monotonic() + {seconds}
    time.sleep(0.001)
    if time.monotonic() >= end:
        break
print(taken)
"""


class Look(NamedTuple):
    """What Ray says of itself, and the system says of the processes, at a moment."""

    seconds: float
    #: How many calls the program, and the worker with the most of them, have open.
    by_program: int
    by_worker: int
    #: The most bytes in the object store of a node.
    stored: int
    #: Resident bytes of the program and of both workers.
    memory: tuple[int, ...]


def look(begin: float, program: int) -> Look:
    import ray  # noqa: PLC0415  # only these tests have it
    from ray._private.internal_api import node_stats  # noqa: PLC0415  # what `ray memory` shows

    found: Any = ray.nodes  # Ray has types for a part of its functions
    stats: Any = node_stats
    nodes = [stats(node["NodeManagerAddress"], node["NodeManagerPort"]) for node in found() if node["Alive"]]
    calls = {each.pid: each.num_pending_tasks for node in nodes for each in node.core_workers_stats}
    workers = sorted(living_workers())
    assert len(workers) == 2
    return Look(
        time.monotonic() - begin,
        calls[program],
        max(calls[worker] for worker in workers),
        max(node.store_stats.object_store_bytes_used for node in nodes),
        tuple((memory_of(pid) or (0, 0))[0] for pid in (program, *workers)),
    )


async def test_a_slow_reader_of_an_endless_flow_holds_everything_up(ray_cluster: Any) -> None:
    from broadway_py.flow.running.runners.ray import ASKING  # noqa: PLC0415  # it needs Ray

    pytest.importorskip(
        "grpc", reason="Ray gives its own numbers to programs that have grpcio, which it does not require"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", READER.format(seconds=ENDLESS_S)], stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    looks: list[Look] = []
    with running.stdout as output:
        assert output.readline() == "begins\n"
        begin = time.monotonic()
        while time.monotonic() < begin + ENDLESS_S - 2:
            looks.append(await asyncio.to_thread(look, begin, running.pid))
        print(f"\n{int(output.read()):,} results; {len(looks)} looks")
    assert running.wait() == 0

    calls = max(each.by_program for each in looks), max(each.by_worker for each in looks)
    stored = max(each.stored for each in looks)
    print(f"calls that are open at most: {calls[0]} of the program, {calls[1]} of a worker; {stored:,} bytes stored")
    for each in range(3):
        first = max(look.memory[each] for look in looks if WARM_S <= look.seconds < 2 * WARM_S)
        last = max(look.memory[each] for look in looks if look.seconds >= ENDLESS_S - WARM_S)
        print(f"{'worker' if each else 'program'}: {first / MIB:.1f}, at the end {last / MIB:.1f} MiB")
        assert last <= first + 1 * MIB
    # To each of two workers: those that carry something, and those that ask. A worker has one other to call.
    assert calls[0] <= 2 * (MOST_OPEN + ASKING)
    assert calls[1] <= MOST_OPEN
    assert stored <= 5 * MIB  # of 100
