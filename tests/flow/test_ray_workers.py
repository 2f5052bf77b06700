"""What the program does with its workers on Ray, with stand-ins for them: no cluster is needed, but Ray."""

from __future__ import annotations

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

pytest.importorskip("ray", reason="Ray is not installed")

from broadway_py.flow.running.runners import ray as runner
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
    monkeypatch.setattr("ray.kill", kill)
    monkeypatch.setattr(runner, "_END_S", 0.01)
    settings = RaySettings("local", {}, {}, 1)
    plan = plan_of(Flow.from_iterable([1]).map(works.same)._layer, 2, DEFAULT_DEMAND)
    workers = runner.RayWorkers(plan, 2, settings, flow=1, on_error="raise", clock=SYSTEM_CLOCK, stopped=lambda _: None)
    ends: Future[None] = Future()
    ends.set_result(None)
    workers._handles = [Actor(ends), hangs := Actor(Future())]

    await workers.close()

    assert killed == [(hangs, True)]
