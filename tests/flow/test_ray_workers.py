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
from tests.stage.support import run_until_idle, soon

pytest.importorskip("ray", reason="Ray is not installed")

from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectStoreFullError

from broadway_py.flow.running.runners import ray as runner
from broadway_py.flow.running.runners import ray_watch
from broadway_py.flow.running.runners.ray import ASKING
from broadway_py.flow.running.runners.ray_cluster import Connected, Node
from broadway_py.flow.running.runners.ray_errors import reason_of
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


async def test_a_last_chunk_that_comes_after_the_word_that_there_are_no_more_is_taken() -> None:
    answers: list[Future[Any]] = []

    def give() -> SimpleNamespace:
        answers.append(Future())
        return SimpleNamespace(future=lambda: answers[-1])

    workers = made([SimpleNamespace(give=SimpleNamespace(remote=give))])
    taken: list[Any] = []
    workers._connections[0] = SimpleNamespace(arrived=lambda *chunk: taken.append(chunk))  # type: ignore[assignment]  # a stand-in
    workers._endings = [asyncio.get_running_loop().create_future()]
    for _ in range(ASKING):
        workers._ask(0)

    answers[1].set_result(None)
    await run_until_idle()
    assert not workers._endings[0].done()
    answers[0].set_result((7, b"the last"))
    await run_until_idle()
    answers[2].set_result(None)
    await run_until_idle()

    assert taken == [(7, b"the last")]
    assert workers._endings[0].done()


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (ActorDiedError(), "has died"),
        (ActorUnavailableError("gone", None), "has died"),
        (ObjectStoreFullError("full"), "cannot be called any more"),
        (RuntimeError("odd"), "cannot be called any more"),
    ],
)
async def test_only_what_is_dead_is_said_to_be(error: Exception, what: str) -> None:
    failed: Future[Any] = Future()
    failed.set_exception(error)
    workers = made([SimpleNamespace(give=SimpleNamespace(remote=lambda: SimpleNamespace(future=lambda: failed)))])
    workers.heard.nodes = [NODE]
    workers._endings = [asyncio.get_running_loop().create_future()]
    workers._ask(0)

    with pytest.raises(FlowFailed) as raised:
        await soon(workers.run())

    assert str(raised.value) == f"Ray worker 0 on node {NODE} {what}: {reason_of(error)}"


# --- a cluster that does not answer


@pytest.fixture
def _silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(gcs_address="127.0.0.1:6379"))
    monkeypatch.setattr(runner, "LOOK_S", 0.01)
    monkeypatch.setattr(runner, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(runner, "_LEAVE_S", 0.01)


@pytest.mark.usefixtures("_silent")
async def test_a_wait_for_workers_ends_although_the_cluster_does_not_answer() -> None:
    workers = made([])
    workers._connected.ask = lambda _: asyncio.get_running_loop().create_future()  # type: ignore[assignment]  # it is dead
    never = SimpleNamespace(future=Future)

    with pytest.raises(FlowFailed) as raised:
        await soon(workers._answers([never, never], workers._clock.monotonic() + 0.03))

    assert str(raised.value) == (
        "ray: 2 of 2 workers are not ready yet; each needs CPU 1; the cluster at 127.0.0.1:6379 does not answer; "
        "gave up after 1 s: ask for fewer workers, add nodes, or set start_timeout"
    )


@pytest.mark.usefixtures("_silent")
async def test_a_flow_ends_although_the_program_cannot_leave_the_cluster() -> None:
    workers = made([])
    workers._connected.end = lambda: asyncio.get_running_loop().create_future()  # type: ignore[method-assign]  # it hangs

    await soon(workers.close())


async def test_a_cluster_that_refuses_the_program_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: object, **__: object) -> None:
        raise RuntimeError("Version mismatch: the cluster was started with:\n    Ray: 2.50.0")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    connected = Connected(RaySettings("auto", {}, {}, 60), 1)

    with pytest.raises(FlowFailed) as raised:
        await soon(connected.begin(60, SYSTEM_CLOCK))
    left = connected.end()
    assert left is not None
    await soon(left)

    assert str(raised.value) == (
        "ray: cannot connect to the cluster at auto: Version mismatch: the cluster was started with: Ray: 2.50.0"
    )


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
