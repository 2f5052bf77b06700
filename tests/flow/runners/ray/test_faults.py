"""Whatever goes wrong on Ray, and whenever: a flow has one error, which says what has died, and leaves nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from broadway_py.errors import FlowFailed
from tests.flow.processes.test_faults import SHARED_MEMORY, state_of
from tests.flow.runners.ray.faulty import ELEMENTS, Fault
from tests.support.eventually import eventually, eventually_sync
from tests.support.ray_cluster import living_actors, living_workers

pytestmark = [pytest.mark.faults, pytest.mark.ray]

#: The most seconds from what goes wrong to the error.
LIMIT_S: Final = 10.0
ADDRESS: Final = r"[0-9.]+ \([0-9a-f]{6}\)"
DIED: Final = rf"Ray worker [01] on node {ADDRESS} has died: .+"
NOT_STARTED: Final = r"ray: worker [01] could not start: .+"


class Left(NamedTuple):
    """What there is of flows on the nodes."""

    actors: set[str]
    workers: set[int]
    shared_memory: set[str]


def left() -> Left:
    return Left(living_actors(), living_workers(), {each.name for each in SHARED_MEMORY.iterdir()})


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    import ray  # noqa: PLC0415  # only these tests have it

    before = left()
    yield
    assert ray.is_initialized()
    try:
        eventually_sync(lambda: left() == before, what="nothing of the flow was left")
    except AssertionError as error:
        raise AssertionError(f"{error}; there was {before}, and there is {left()}") from None


@pytest.fixture
def fault(tmp_path: Path) -> Callable[[str, str], Fault]:
    return lambda what, point: Fault(what, point, tmp_path / "flag")


async def error_of(flow: Any, fault: Fault) -> str:
    """The error of *flow*, which came in time."""
    with pytest.raises(FlowFailed) as raised:
        await flow.run_async()
    seconds = time.time() - fault.flag.stat().st_mtime
    assert seconds < LIMIT_S, f"{raised.value} came after {seconds:.1f} s"
    return str(raised.value)


# --- workers


@pytest.mark.parametrize("point", ["start", "first", "exchange", "middle", "reduced"])
async def test_the_death_of_a_worker_is_the_error_of_the_flow(fault: Callable[[str, str], Fault], point: str) -> None:
    kills = fault("kill", point)

    assert re.fullmatch(DIED, await error_of(kills.flow(), kills))
    assert len(await kills.flow().to_list_async()) == ELEMENTS + 2


async def test_a_function_that_leaves_the_process_is_a_death_and_one_that_exits_is_an_error(
    fault: Callable[[str, str], Fault],
) -> None:
    leaves = fault("_exit", "middle")
    assert re.fullmatch(DIED, await error_of(leaves.flow(), leaves))

    leaves.flag.unlink()
    exits = fault("exit", "middle")
    assert re.fullmatch(
        f"map 1: mapped failed with SystemExit in stage [01] at element {ELEMENTS // 2} of source 0",
        await error_of(exits.flow(), exits),
    )


async def test_the_death_of_a_worker_before_it_begins_is_the_error_of_the_flow(
    fault: Callable[[str, str], Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    from broadway_py.flow.running.runners import ray as runner  # noqa: PLC0415  # it needs Ray

    unused = fault("kill", "by the test")
    others = living_workers()

    def kill(_: object) -> None:
        os.kill(max(living_workers() - others), signal.SIGKILL)
        unused.flag.touch()

    monkeypatch.setattr(runner, "_check_versions", kill)

    assert re.fullmatch(NOT_STARTED, await error_of(unused.flow(), unused))


async def test_an_actor_that_somebody_else_kills_is_a_death(fault: Callable[[str, str], Fault]) -> None:
    import ray  # noqa: PLC0415  # only these tests have it

    from broadway_py.flow.running.runners.ray import RayWorkers  # noqa: PLC0415  # it needs Ray

    blocks = fault("block", "middle")
    found: list[Any] = []
    original = RayWorkers.run

    async def run(self: RayWorkers) -> None:
        found.extend(self._handles)
        await original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayWorkers, "run", run)
        running = asyncio.create_task(error_of(blocks.flow(), blocks))
        await eventually(blocks.flag.exists, what="a function blocked")
        os.utime(blocks.flag)
        ray.kill(found[1])

        assert re.fullmatch("Ray worker 1 on .+ has died: .*ray.kill.*", await running)


@pytest.mark.parametrize("what", ["block", "stop"])
async def test_a_flow_that_is_left_ends_workers_that_do_not_answer(
    fault: Callable[[str, str], Fault], what: str
) -> None:
    holds = fault(what, "middle")
    running = await holds.flow(endless=True).start()

    await eventually(holds.flag.exists, what="a function blocked")
    holder = int(holds.flag.read_text())
    if what == "stop":
        await eventually(lambda: state_of(holder) == "T", what="the worker was stopped")
    begin = time.monotonic()
    await running.stop()

    assert time.monotonic() - begin < LIMIT_S


async def test_whoever_leaves_the_results_ends_the_workers(fault: Callable[[str, str], Fault]) -> None:
    results = aiter(fault("tell", "never").flow(endless=True))
    await anext(results)
    begin = time.monotonic()

    await results.aclose()

    assert time.monotonic() - begin < LIMIT_S


# --- nodes


@pytest.fixture
def victim(ray_cluster: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A node that only workers go to that need what has the name of the test.

    Ray takes some seconds to notice that the node of another test is gone, and would use that.
    """
    resources = {request.node.name: 1}
    node = ray_cluster.add_node(num_cpus=1, resources=resources, object_store_memory=100 << 20)
    yield node
    ray_cluster.remove_node(node, allow_graceful=False)


def kill_raylet(node: Any) -> None:
    """Kills it, and leaves a zombie, as a container does whose first process collects none."""
    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)


@pytest.mark.parametrize("point", ["placing", "first", "block"])
async def test_the_death_of_a_node_is_the_error_of_the_flow(
    fault: Callable[[str, str], Fault],
    victim: Any,
    point: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    from broadway_py.flow.running.runners.ray import RayWorkers  # noqa: PLC0415  # it needs Ray

    reaches = fault("block" if point == "block" else "tell", "first")
    flow = reaches.flow(endless=True, workers=1, resources={request.node.name: 1})
    if point == "placing":
        original = RayWorkers._made

        def made(self: RayWorkers) -> list[Any]:
            handles = original(self)
            kill_raylet(victim)
            reaches.flag.touch()
            return handles

        monkeypatch.setattr(RayWorkers, "_made", made)
        assert re.fullmatch(f"{DIED}|{NOT_STARTED}", await error_of(flow, reaches))
        return
    running = asyncio.create_task(error_of(flow, reaches))
    await eventually(reaches.flag.exists, what="the worker was at work")
    os.utime(reaches.flag)
    kill_raylet(victim)

    assert re.fullmatch(DIED, await running)


# --- the program


def program(fault: Fault, *settings: dict[str, Any]) -> subprocess.Popen[str]:
    """Starts a program that runs a flow with each of the settings. Each connects to the cluster, and disconnects."""
    case = {"what": fault.what, "point": fault.point, "flag": str(fault.flag)}
    lines = [json.dumps({**case, "settings": each}) for each in settings]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.flow.runners.ray.faulty", *lines],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("point", ["connecting", "placing", "middle", "closing"])
async def test_the_workers_of_a_program_that_is_killed_end(fault: Callable[[str, str], Fault], point: str) -> None:
    reached = fault("tell", point)
    running = program(reached, {"endless": point == "middle"})
    await eventually(reached.flag.exists, what="the program got to the point")

    running.kill()

    running.communicate()


@pytest.mark.parametrize("point", ["connecting", "placing", "middle", "closing"])
async def test_an_interrupt_ends_the_program_and_its_workers(fault: Callable[[str, str], Fault], point: str) -> None:
    reached = fault("block" if point == "middle" else "tell", point)
    running = program(reached, {"endless": point == "middle"})
    await eventually(reached.flag.exists, what="the program got to the point")
    begin = time.monotonic()

    running.send_signal(signal.SIGINT)
    told, errors = running.communicate()

    assert time.monotonic() - begin < LIMIT_S
    assert told == "KeyboardInterrupt: \n", errors


def test_an_address_without_a_cluster_is_told_and_does_not_hold_up_the_next_flow(
    fault: Callable[[str, str], Fault], ray_cluster: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
    told, _ = program(
        fault("tell", "never"), {"address": nobody, "start_timeout": 3}, {"address": ray_cluster.address}
    ).communicate()

    assert told.splitlines() == [
        f"FlowFailed: ray: expected the cluster at {nobody} within 3 s: [Errno 111] Connection refused",
        str(ELEMENTS + 2),
    ]


TWO_FLOWS: Final = """
import threading
from concurrent.futures import ThreadPoolExecutor

import ray
from broadway_py import Flow

has_ended = threading.Event()

def numbers():
    yield 1
    has_ended.wait()
    yield 2

def run(numbers):
    return Flow.from_iterable(numbers).map(str).using("ray", workers=1).to_list()

with ThreadPoolExecutor() as pool:
    later = pool.submit(run, numbers())
    print(pool.submit(run, [0]).result(), ray.is_initialized())
    has_ended.set()
    print(later.result(), ray.is_initialized())
"""


def test_the_connection_of_a_program_ends_with_the_last_of_its_flows() -> None:
    ran = subprocess.run([sys.executable, "-c", TWO_FLOWS], capture_output=True, text=True, check=False)

    assert ran.stdout == "['0'] True\n['1', '2'] False\n", ran.stderr
