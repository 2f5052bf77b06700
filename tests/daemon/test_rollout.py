"""What a reload does with the workers, and in which order. The workers here only note it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Pipeline
from broadway_py.daemon.pipelines.loader import build_pipelines
from broadway_py.daemon.reload.code_files import CodeFiles
from broadway_py.daemon.reload.outcome import Reloaded
from broadway_py.daemon.reload.resolved import Resolved, resolved
from broadway_py.daemon.settings.settings import read_settings
from broadway_py.daemon.workers.checking import check_afresh
from broadway_py.daemon.workers.rollout import Rollout

RECORDER = "tests.daemon.reload_pipelines:Recorder"


class Noting:
    """Workers that do at once what they are told, unless a test says why they cannot."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.told: list[tuple[Any, ...]] = []
        #: Why a call fails, by what is told.
        self.failures: dict[tuple[Any, ...], str] = {}
        #: After this call everything must stop.
        self.stops_after: tuple[Any, ...] | None = None

    def expect(self, pipelines: Sequence[Pipeline[Any]], changed: Sequence[str], workers: int) -> None:
        self.told.append(("expect", [one.name for one in pipelines], list(changed), workers))

    def settle(self, pipelines: Sequence[Pipeline[Any]], workers: int) -> None:
        self.told.append(("settle", [one.name for one in pipelines], workers))

    async def bring(self, index: int, settings: Resolved) -> tuple[str, ...]:
        return self._note("bring", index, _concurrency(settings))

    async def renew(self, index: int, settings: Resolved) -> tuple[str, ...]:
        return self._note("renew", index, _concurrency(settings))

    async def resize(self, workers: int, settings: Resolved) -> tuple[str, ...]:
        return self._note("resize", workers, _concurrency(settings))

    def _note(self, *told: Any) -> tuple[str, ...]:
        self.told.append(told)
        if told == self.stops_after:
            self.stopping.set()
        return (self.failures[told],) if told in self.failures else ()


def _concurrency(settings: Resolved) -> int:
    section = settings.settings.pipelines["a"]
    return int(section["processors"]["concurrency"])


class Reloads:
    """A rollout over a settings file with one pipeline, ``a``."""

    def __init__(self, folder: Path, *, workers: int, code: CodeFiles | None = None, **section: Any) -> None:
        self.file = folder / "settings.json"
        self.workers = Noting()
        self.write(1, workers=workers, **section)
        now = self.read()
        pipelines = build_pipelines(now.settings, share=(0, workers))
        self._rollout = Rollout(now, pipelines, self.read, code or {})

    def write(self, concurrency: int, *, workers: int, **section: Any) -> None:
        producer = {"kind": "queue", "path": "queue.db", "queue": "a"}
        section = {"class": RECORDER, "producer": producer, "processors": {"concurrency": concurrency}, **section}
        self.file.write_text(json.dumps({"pipelines": {"a": section}, "http": None, "workers": workers}))

    def read(self) -> Resolved:
        return resolved(read_settings([self.file], environ={}))

    async def reload(self) -> Reloaded:
        self.workers.told.clear()
        return await self._rollout(self.workers)


async def test_settings_reach_one_worker_after_the_other(tmp_path: Path) -> None:
    reloads = Reloads(tmp_path, workers=3)
    assert await reloads.reload() == Reloaded(unchanged=("a",))
    assert reloads.workers.told == [("expect", ["a"], [], 3), ("settle", ["a"], 3)]
    reloads.write(2, workers=3)
    assert await reloads.reload() == Reloaded(changed=("a",))
    assert reloads.workers.told == [
        ("expect", ["a"], ["a"], 3),
        ("bring", 0, 2),
        ("bring", 1, 2),
        ("bring", 2, 2),
        ("settle", ["a"], 3),
    ]
    assert await reloads.reload() == Reloaded(unchanged=("a",))


async def test_more_workers_start_when_the_others_have_smaller_shares_and_fewer_end_first(tmp_path: Path) -> None:
    reloads = Reloads(tmp_path, workers=2)
    reloads.write(1, workers=3)
    assert await reloads.reload() == Reloaded(unchanged=("a",), others=("workers",))
    assert reloads.workers.told[1:] == [("bring", 0, 1), ("bring", 1, 1), ("resize", 3, 1), ("settle", ["a"], 3)]
    reloads.write(1, workers=2)
    assert await reloads.reload() == Reloaded(unchanged=("a",), others=("workers",))
    assert reloads.workers.told[1:] == [("resize", 2, 1), ("bring", 0, 1), ("bring", 1, 1), ("settle", ["a"], 2)]


async def test_the_old_settings_come_back_to_all_who_had_the_new_ones(tmp_path: Path) -> None:
    reloads = Reloads(tmp_path, workers=3)
    reloads.workers.failures["bring", 1, 2] = "worker 1: no"
    reloads.write(2, workers=3)
    assert await reloads.reload() == Reloaded(failed=("worker 1: no", "all workers run with their old settings again"))
    assert reloads.workers.told[1:] == [
        ("bring", 0, 2),
        ("bring", 1, 2),
        ("bring", 0, 1),
        ("bring", 1, 1),
        ("resize", 3, 1),
        ("settle", ["a"], 3),
    ]
    # It is tried again with the next reload, and told if going back has failed, too.
    reloads.workers.failures["bring", 0, 1] = "worker 0: neither"
    assert await reloads.reload() == Reloaded(failed=("worker 1: no", "worker 0: neither"))
    # After a failure, workers that were taken away come back.
    reloads.workers.failures = {("bring", 0, 2): "worker 0: no"}
    reloads.write(2, workers=2)
    assert (await reloads.reload()).outcome == "failed"
    assert reloads.workers.told[1:] == [
        ("resize", 2, 2),
        ("bring", 0, 2),
        ("bring", 0, 1),
        ("resize", 3, 1),
        ("settle", ["a"], 3),
    ]


async def test_changed_code_comes_with_fresh_processes_and_does_not_go_back(tmp_path: Path) -> None:
    code = {str(tmp_path / "not-there.py"): (1, 1)}
    reloads = Reloads(tmp_path, workers=2, code=code)
    reloads.workers.failures["renew", 1, 1] = "worker 1: no"
    assert await reloads.reload() == Reloaded(failed=("worker 1: no",))
    assert reloads.workers.told[1:] == [("renew", 0, 1), ("renew", 1, 1), ("resize", 2, 1), ("settle", ["a"], 2)]
    reloads.workers.failures.clear()
    assert await reloads.reload() == Reloaded(unchanged=("a",), others=("code",))
    assert reloads.workers.told[1:] == [("renew", 0, 1), ("renew", 1, 1), ("settle", ["a"], 2)]
    # The code is as it was when the fresh processes loaded it.
    assert await reloads.reload() == Reloaded(unchanged=("a",))


async def test_wrong_settings_reach_nobody(tmp_path: Path) -> None:
    for code in ({}, {str(tmp_path / "not-there.py"): (1, 1)}):
        reloads = Reloads(tmp_path, workers=2, code=code)
        reloads.write(1, workers=1, unknown=3)
        refused = (await reloads.reload()).refused
        assert refused[0].startswith(f"{reloads.file}:1: workers: a change from 2 to 1 takes effect at a restart only")
        assert refused[1].startswith(f"{reloads.file}:1: pipelines.a.unknown: unknown setting")
        assert len(refused) == 2
        assert reloads.workers.told == []


@pytest.mark.parametrize("changes", [{"workers": 3}, {"workers": 2, "own": "1-3"}])
async def test_partitions_do_not_move_between_workers(tmp_path: Path, changes: dict[str, Any]) -> None:
    producer = {"kind": "queue", "path": "queue.db", "queue": "a", "partitions": 4}
    reloads = Reloads(tmp_path, workers=2, producer=producer)
    reloads.write(1, producer=producer, **changes)
    assert await reloads.reload() == Reloaded(
        refused=(
            (
                f"{reloads.file}:1: pipelines.a: partitions of its sources would move to other workers, which takes "
                "effect at a restart only: a partition has one owner at a time; put `workers`, `own` and `partitions` "
                "back to reload the others"
            ),
        )
    )
    assert reloads.workers.told == []
    reloads.write(2, workers=2, producer=producer)
    assert (await reloads.reload()).changed == ("a",)


async def test_a_stop_leaves_the_workers_that_are_left_alone(tmp_path: Path) -> None:
    reloads = Reloads(tmp_path, workers=3)
    reloads.workers.stops_after = ("bring", 1, 2)
    reloads.write(2, workers=4)
    await reloads.reload()
    assert reloads.workers.told[1:3] == [("bring", 0, 2), ("bring", 1, 2)]
    assert [told[0] for told in reloads.workers.told[3:]] == ["settle"]
    assert (await reloads.reload()).refused == ("the process is stopping, so nothing is reloaded",)


async def test_a_process_that_ends_while_it_loads_the_code_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reload_ends_the_process.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "settings.json"
    file.write_text('{"pipelines": {"a": {"class": "reload_ends_the_process:A"}}, "workers": 2}')
    checked = await check_afresh(read_settings([file], environ={}))
    assert checked.wrong == ("the settings cannot be checked: the process that loads the code has ended (exit code 7)",)
