"""What the program does with its workers on Ray, with stand-ins for them: no cluster is needed, but Ray."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import FlowFailed
from broadway_py.flow import Flow
from broadway_py.flow.description.layers import DEFAULT_DEMAND
from broadway_py.flow.description.settings import RaySettings
from broadway_py.flow.plan import plan_of
from tests.flow.processes import works
from tests.stage.support import soon

pytest.importorskip("ray", reason="Ray is not installed")

from broadway_py.flow.running.runners import ray as runner
from broadway_py.flow.running.runners import ray_watch
from broadway_py.flow.running.runners.ray_cluster import Node
from broadway_py.flow.running.runners.ray_watch import Endpoint
from broadway_py.flow.running.runners.ray_worker import About, Versions, file_stat, versions_here

NODE = "10.0.0.7 (abcdef)"


def about(**changed: Any) -> About:
    return About(NODE, versions_here(), ())._replace(**changed)


@pytest.mark.parametrize("name", Versions._fields)
def test_a_worker_with_another_version_is_refused_with_both_sides(name: str) -> None:
    here = versions_here()
    there = here._replace(**{name: "0.1"})

    runner._check_versions([about(), about()])
    with pytest.raises(FlowFailed) as raised:
        runner._check_versions([about(), about(versions=there)])

    told = "Python {}, broadway_py {}, cloudpickle {}"
    assert str(raised.value) == (
        f"ray: expected the versions of this program, {told.format(*here)}, in each worker; "
        f"worker 1 on node {NODE} has {told.format(*there)}; install the same there"
    )


def test_a_file_that_is_another_one_on_a_node_is_refused_with_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("abc")
    os.utime(path, (1, 1))
    here = file_stat(str(path))
    assert not isinstance(here, str)

    runner._check_files([str(path)], [about(files=[here])])
    for there, text in (
        (here._replace(size=1_000), "1,000 bytes, changed at 1970-01-01 00:00:01.000000 UTC"),
        (here._replace(modified_ns=2_000_000_000), "3 bytes, changed at 1970-01-01 00:00:02.000000 UTC"),
        ("No such file or directory", "No such file or directory"),
    ):
        with pytest.raises(FlowFailed) as raised:
            runner._check_files([str(path)], [about(files=[here]), about(files=[there])])
        assert str(raised.value) == (
            f"from_files: expected {path} to be the same for this program and for each worker; "
            "here: 3 bytes, changed at 1970-01-01 00:00:01.000000 UTC; "
            f"for worker 1 on node {NODE}: {text}; put it where every node sees it"
        )


def made(handles: list[Any]) -> runner.RayWorkers:
    plan = plan_of(Flow.from_iterable([1]).map(works.same)._layer, 2, DEFAULT_DEMAND)
    settings = RaySettings("local", {}, {}, 1)
    workers = runner.RayWorkers(plan, 2, settings, flow=1, on_error="raise", clock=SYSTEM_CLOCK, stopped=lambda _: None)
    workers._handles = handles
    return workers


class Actor:
    """Stands for an actor, which ends when it is asked to, or never."""

    def __init__(self, exit_: Future[None]) -> None:
        self.exit = exit_
        self.__ray_terminate__ = SimpleNamespace(remote=lambda: SimpleNamespace(future=lambda: exit_))


async def test_a_worker_that_does_not_end_when_it_is_asked_to_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(handle: Actor, *, no_restart: bool) -> None:
        killed.append((handle, no_restart))
        handle.exit.set_result(None)

    killed: list[Any] = []
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.kill", kill)
    monkeypatch.setattr(runner, "_END_S", 0.01)
    ends: Future[None] = Future()
    ends.set_result(None)

    await made([Actor(ends), hangs := Actor(Future())]).close()

    assert killed == [(hangs, True)]


HEAD = Endpoint("127.0.0.1", 6379)


@pytest.fixture
def _cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster with a head and three nodes: that of the program, that of a worker, and another one."""
    nodes = {Endpoint("127.0.0.1", port): Node(name, f"127.0.0.1 ({name})") for port, name in enumerate("PWA", 1)}
    context = SimpleNamespace(get_node_id=lambda: "P", gcs_address="127.0.0.1:6379")
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    monkeypatch.setattr(runner, "nodes_of_cluster", lambda: nodes)
    monkeypatch.setattr(runner, "node_of_actor", lambda handle: handle)
    monkeypatch.setattr(runner, "LOOK_S", 0.01)


@pytest.mark.usefixtures("_cluster")
@pytest.mark.parametrize(
    ("gone", "told"),
    [
        (HEAD, "ray: the head of the cluster at 127.0.0.1:6379 has died"),
        (Endpoint("127.0.0.1", 1), "ray: node 127.0.0.1 (P), which this program uses, has died"),
        (Endpoint("127.0.0.1", 2), "Ray worker 1 on node 127.0.0.1 (W) has died"),
    ],
    ids=["head", "node of the program", "node of a worker"],
)
async def test_the_end_of_a_process_that_a_flow_needs_is_its_error(
    gone: Endpoint, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(endpoint: Endpoint) -> bool:
        # A node without a worker of the flow may come and go.
        return endpoint in {gone, Endpoint("127.0.0.1", 3)}

    monkeypatch.setattr(ray_watch, "_refuses", refuses)
    workers = made(["", "W"])
    watching = asyncio.create_task(workers._watch())

    with pytest.raises(FlowFailed) as raised:
        await soon(workers.run())

    watching.cancel()
    assert str(raised.value) == f"{told}: Ray's process there refuses connections"
