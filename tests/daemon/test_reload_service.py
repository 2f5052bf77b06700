"""Reloads of pipelines in one process: what has not changed runs on, and what has drains and starts anew."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Pipeline
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.pipelines.loader import build_pipelines
from broadway_py.daemon.pipelines.reloading import Reloading
from broadway_py.daemon.pipelines.roster import Roster
from broadway_py.daemon.pipelines.service import Service
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.reload.outcome import Reloaded
from broadway_py.daemon.reload.resolved import resolved
from broadway_py.daemon.reload.turns import ReloadTurns
from broadway_py.daemon.settings.settings import Settings, read_settings
from broadway_py.producers import DummyProducer
from broadway_py.queue import Queue
from tests.daemon.reload_pipelines import Recorder
from tests.support.eventually import eventually

RECORDER = "tests.daemon.reload_pipelines:Recorder"


class Running:
    """A service with its settings file, and the queues that its pipelines read."""

    def __init__(self, folder: Path, **pipelines: Any) -> None:
        self.folder = folder
        self.file = folder / "settings.json"
        self.write(**pipelines)
        settings = self.read()
        self.roster = Roster(build_pipelines(settings))
        self.reloads = ReloadTurns()
        lag = LagMeter()
        self.view = LocalView(self.roster, lag, self.reloads)
        reloading = Reloading(resolved(settings), lambda: resolved(self.read()))
        self.service = Service(self.roster, lag, reload=reloading, reloads=self.reloads)

    def write(self, *, top: dict[str, Any] | None = None, **pipelines: Any) -> None:
        """Write the settings. A pipeline of the name N reads the queue N, unless its section says otherwise."""
        sections = {
            name: {"class": RECORDER, "producer": self.queue(name), **section} for name, section in pipelines.items()
        }
        self.file.write_text(json.dumps({"pipelines": sections, "http": None, **(top or {})}))

    def queue(self, name: str) -> dict[str, Any]:
        """The section of a producer."""
        return {"kind": "queue", "path": str(self.folder / "queue.db"), "queue": name}

    def read(self) -> Settings:
        """Read them."""
        return read_settings([self.file], environ={})

    async def put(self, queue: str, *payloads: str) -> None:
        """Put messages on a queue."""
        async with Queue(self.folder / "queue.db", queue) as publisher:
            await publisher.put_many([payload.encode() for payload in payloads])

    async def until(self, *noted: tuple[str, str]) -> None:
        """Wait until all of this has happened."""
        await eventually(lambda: set(noted) <= set(Recorder.noted), what=f"{noted} in {Recorder.noted}")

    async def reload(self, **pipelines: Any) -> Reloaded:
        """Write other settings and reload."""
        self.write(**pipelines)
        return await self.view.reload_and_wait()

    def handled(self) -> list[str]:
        """The payloads that were handled, in order."""
        return [what for what, _ in Recorder.noted if what not in ("setup", "teardown")]


@asynccontextmanager
async def running(folder: Path, *, code: int = 0, **pipelines: Any) -> AsyncIterator[Running]:
    """A service that runs in the block, is stopped at its end, and then ends with *code*."""
    Recorder.forget()
    made = Running(folder, **pipelines)
    task = asyncio.create_task(made.service.run())
    await eventually(lambda: task.done() or not any(made.view.not_ready().values()), what="all are ready")
    try:
        yield made
    finally:
        Recorder.gate.set()
        made.service.stop()
        assert await asyncio.wait_for(task, 30) == code


FASTER = {"processors": {"concurrency": 3}}


async def test_unchanged_pipelines_are_not_touched_and_changed_ones_start_anew(tmp_path: Path) -> None:
    async with running(tmp_path, a={}, b={}) as it:
        await it.put("a", "a1")
        await it.put("b", "b1")
        await it.until(("a1", "a"), ("b1", "b"))
        before = dict(it.roster.pipelines)
        done = await it.reload(a={}, b=FASTER)
        assert done == Reloaded(unchanged=("a",), changed=("b",))
        assert it.roster.pipelines["a"] is before["a"]
        assert it.roster.pipelines["b"] is not before["b"]
        assert (before["a"].phase, before["b"].phase) == ("running", "stopped")
        assert it.roster.pipelines["b"].processors.concurrency == 3
        await it.put("a", "a2")
        await it.put("b", "b2")
        await it.until(("a2", "a"), ("b2", "b"))
        assert sorted(it.handled()) == ["a1", "a2", "b1", "b2"]
        # The old one had ended before the new one began.
        assert [what for what, name in Recorder.noted if name == "b" and what in ("setup", "teardown")] == [
            "setup",
            "teardown",
            "setup",
        ]
        assert it.view.not_ready() == {"a": [], "b": []}


async def test_pipelines_come_and_go(tmp_path: Path) -> None:
    async with running(tmp_path, a={}, b={}) as it:
        done = await it.reload(c={}, a={})
        assert done == Reloaded(unchanged=("a",), new=("c",), gone=("b",))
        assert list(it.roster.pipelines) == ["a", "c"]
        await it.put("c", "c1")
        await it.until(("c1", "c"), ("teardown", "b"))
        assert list(it.view.not_ready()) == ["a", "c"]


async def test_a_renamed_pipeline_starts_only_when_the_one_of_the_old_name_has_ended(tmp_path: Path) -> None:
    async with running(tmp_path, old={"context": {"waits_for": "slow"}}) as it:
        await it.put("old", "slow")
        await asyncio.wait_for(Recorder.at_gate.wait(), 10)
        it.write(new={"producer": it.queue("old")})
        reloading = asyncio.create_task(it.view.reload_and_wait())
        await eventually(lambda: it.view.not_ready() == {"old": ["reloading: draining"]}, what="it drains")
        assert it.view.reload_status().is_running
        Recorder.gate.set()
        assert await reloading == Reloaded(new=("new",), gone=("old",))
        assert Recorder.noted == [("setup", "old"), ("slow", "old"), ("teardown", "old"), ("setup", "new")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "settings.json:2: not valid JSON"),
        ('{"pipelines": {}}', "settings.json:1: pipelines: expected at least one pipeline"),
        (
            '{"http": null, "pipelines": {"a": {"class": "nowhere:Orders"}}}',
            "pipelines.a.class: there is no module 'nowhere'",
        ),
        (
            (
                '{"http": null, "pipelines": {"a": {"class": "tests.daemon.reload_pipelines:Recorder", '
                '"producer": {"kind": "qeue"}}}}'
            ),
            "pipelines.a.producer.kind: unknown kind 'qeue'",
        ),
    ],
)
async def test_wrong_settings_change_nothing(tmp_path: Path, text: str, sentence: str) -> None:
    async with running(tmp_path, a={}, b={}) as it:
        before = dict(it.roster.pipelines)
        it.file.write_text(text)
        done = await it.view.reload_and_wait()
        assert done.outcome == "refused"
        assert sentence in done.refused[0]
        assert it.roster.pipelines == before
        assert [one.phase for one in before.values()] == ["running", "running"]
        # The right ones are taken later.
        assert (await it.reload(a=FASTER, b={})).changed == ("a",)


async def test_an_error_in_a_constructor_changes_nothing_and_is_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, a={}) as it:
        before = it.roster.pipelines["a"]
        done = await it.reload(a={"class": "tests.daemon.reload_pipelines:RaisesOnTheWay"})
        assert done == Reloaded(refused=("reading the settings again raised KeyError",))
        assert it.roster.pipelines["a"] is before
        assert before.is_running


async def test_what_needs_a_restart_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, a={}) as it:
        done = await it.reload(top={"http": {"port": 1}, "workers": 3}, a={**FASTER, "unknown": 1})
        assert done.outcome == "refused"
        assert [one.partition("settings.json:1: ")[2].partition(":")[0] for one in done.refused] == [
            "http",
            "workers",
            "pipelines.a.unknown",
        ]
        assert it.roster.pipelines["a"].processors.concurrency != 3


async def test_a_pipeline_that_cannot_start_with_its_new_settings_runs_with_the_old_ones_again(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, a={}, b={}) as it:
        done = await it.reload(a={"context": {"setup": "raises"}}, b=FASTER)
        assert done == Reloaded(
            changed=("b",),
            failed=(
                (
                    "pipeline 'a' cannot start with its new settings: its start raised RuntimeError; "
                    "it runs with its old settings again"
                ),
            ),
        )
        assert it.view.reload_status().last == done
        assert it.view.not_ready() == {"a": [], "b": []}
        await it.put("a", "a1")
        await it.until(("a1", "a"))
        # The next reload tries again, and one with the old settings leaves it alone.
        again = it.roster.pipelines["a"]
        assert (await it.reload(a={"context": {"setup": "raises"}}, b=FASTER)).outcome == "failed"
        assert it.roster.pipelines["a"] is not again
        again = it.roster.pipelines["a"]
        assert await it.reload(a={}, b=FASTER) == Reloaded(unchanged=("a", "b"))
        assert it.roster.pipelines["a"] is again


async def test_a_pipeline_that_cannot_start_with_the_old_settings_either_ends_the_process(tmp_path: Path) -> None:
    async with running(tmp_path, code=1, a={}, b={}) as it:
        it.write(a={"context": {"setup": "raises"}}, b={})

        class NoLongerStarts(Recorder):
            async def setup(self) -> None:
                raise RuntimeError("there is no place any more")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.daemon.reload_pipelines.Recorder", NoLongerStarts)
            done = await it.view.reload_and_wait()
        assert done.failed == (
            (
                "pipeline 'a' cannot start with its new settings: its start raised RuntimeError; "
                "nor with its old ones: its start raised RuntimeError"
            ),
        )
        assert it.service.could_not_start
        assert it.service.was_asked_to_stop


async def test_a_source_that_must_be_there_at_the_start_and_is_not_brings_the_old_settings_back(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, a={}) as it:
        away = {"kind": "queue", "path": str(tmp_path), "queue": "a"}  # a folder
        done = await it.reload(a={"producer": away, "fail_fast": True})
        assert done.changed == ()
        assert done.failed[0].startswith("pipeline 'a' cannot start with its new settings: producer 'queue' could not")
        assert done.failed[0].endswith("; it runs with its old settings again")
        await it.put("a", "a1")
        await it.until(("a1", "a"))


async def test_a_new_pipeline_that_cannot_start_ends_no_other_and_is_told(tmp_path: Path) -> None:
    async with running(tmp_path, a={}) as it:
        done = await it.reload(a={}, b={"context": {"setup": "raises"}})
        assert done == Reloaded(
            unchanged=("a",), failed=("pipeline 'b', which is new, cannot start: its start raised RuntimeError",)
        )
        assert it.view.not_ready() == {"a": [], "b": ["it cannot start: its start raised RuntimeError"]}
        assert await it.reload(a={}, b={}) == Reloaded(unchanged=("a",), new=("b",))
        assert it.view.not_ready() == {"a": [], "b": []}
        await it.reload(a={}, c={"context": {"setup": "raises"}})
        assert await it.reload(a={}) == Reloaded(unchanged=("a",))
        assert list(it.view.not_ready()) == ["a"]


async def test_a_late_drain_hands_back_and_the_reload_goes_on(tmp_path: Path) -> None:
    section = {"context": {"waits_for": "slow"}, "shutdown_timeout": 0.1}
    async with running(tmp_path, a=section) as it:
        await it.put("a", "slow")
        await asyncio.wait_for(Recorder.at_gate.wait(), 10)
        done = await it.reload(a={})
        assert done == Reloaded(changed=("a",))
        await it.until(("slow", "a"))
        assert it.handled() == ["slow"]


async def test_a_stop_during_the_drain_of_a_reload_starts_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, a={"context": {"waits_for": "slow"}}, b={}) as it:
        await it.put("a", "slow")
        await asyncio.wait_for(Recorder.at_gate.wait(), 10)
        it.write(a={}, b={}, c={})
        reloading = asyncio.create_task(it.view.reload_and_wait())
        await eventually(lambda: it.roster.pipelines["a"].phase == "draining", what="it drains")
        it.service.stop()
        assert (await it.view.reload_and_wait()).refused == ("the process is stopping, so nothing is reloaded",)
        Recorder.gate.set()
        await reloading
        assert list(it.roster.pipelines) == ["a", "b"]
        assert [one for one in Recorder.noted if one[0] == "setup"] == [("setup", "a"), ("setup", "b")]
        assert it.handled() == ["slow"]


async def test_a_stop_while_a_new_pipeline_is_set_up_cuts_it_off(tmp_path: Path) -> None:
    async with running(tmp_path, a={}) as it:
        it.write(a={"context": {"setup": "waits"}})
        reloading = asyncio.create_task(it.view.reload_and_wait())
        await asyncio.wait_for(Recorder.at_gate.wait(), 10)
        assert it.view.not_ready() == {"a": ["reloading: starting"]}
        it.service.stop()
        assert (await reloading).failed == ()


async def test_a_stop_while_the_settings_are_read_waits_for_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    begun, released = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await released.wait()

    async with running(tmp_path, a={}) as it:
        read = it.read
        monkeypatch.setattr(it, "read", lambda: (asyncio.run_coroutine_threadsafe(wait(), loop).result(), read())[1])
        reloading = asyncio.create_task(it.view.reload_and_wait())
        await asyncio.wait_for(begun.wait(), 10)
        it.service.stop()
        assert (await reloading).refused == ("the process is stopping, so nothing is reloaded",)
        released.set()


async def test_counters_never_go_down_and_add_up_at_each_moment(tmp_path: Path) -> None:
    async with running(tmp_path, a={}, b={}) as it:
        seen: list[int] = []
        ended = asyncio.Event()

        async def scrape() -> None:
            while not ended.is_set():
                for one in it.view.stats():
                    for producer in one.producers:
                        assert producer.received == sum(producer.outcomes.values()) + producer.in_flight
                seen.append(sum(p.received for one in it.view.stats() if one.name == "a" for p in one.producers))
                # Without a pause, the threads that write the queue get no time on a machine that is idle otherwise.
                await asyncio.sleep(0.001)

        scraping = asyncio.create_task(scrape())
        for number in range(4):
            await it.put("a", *(f"{number}-{index}" for index in range(20)))
            await it.until((f"{number}-0", "a"))
            await it.reload(a={"processors": {"concurrency": 2 + number}}, b={})
        await it.until(*((f"{number}-{index}", "a") for number in range(4) for index in range(20)))
        ended.set()
        await scraping
        assert seen == sorted(seen)
        assert len(it.handled()) == 80
        (stats,) = [one for one in it.view.stats() if one.name == "a"]
        (producer,) = stats.producers
        assert producer.outcomes["acked"] + producer.in_flight == 80 + producer.redelivered
        # A pipeline that comes back counts on.
        await it.reload(b={})
        await it.reload(a={}, b={})
        await eventually(lambda: it.view.not_ready() == {"b": [], "a": []}, what="it runs again")
        (stats,) = [one for one in it.view.stats() if one.name == "a"]
        assert sum(one.received for one in stats.producers) >= 80


async def test_a_paused_pipeline_starts_paused_again(tmp_path: Path) -> None:
    async with running(tmp_path, a={}) as it:
        await it.view.pause("a")
        assert (await it.reload(a=FASTER)).changed == ("a",)
        assert it.view.not_ready() == {"a": ["paused"]}
        await it.view.resume("a")
        assert it.view.not_ready() == {"a": []}


async def test_the_log_changes_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured: list[Any] = []
    monkeypatch.setattr(
        "broadway_py.daemon.logs.logs.configure", lambda log, worker: configured.append((log.level, worker))
    )
    async with running(tmp_path, a={}) as it:
        before = it.roster.pipelines["a"]
        assert await it.reload(top={"log": {"level": "debug"}}, a={}) == Reloaded(unchanged=("a",), others=("log",))
        assert configured == [("debug", None)]
        assert await it.reload(top={"log": {"level": "debug"}}, a={}) == Reloaded(unchanged=("a",))
        assert len(configured) == 1
        assert it.roster.pipelines["a"] is before


async def test_pipelines_of_a_script_have_no_settings_to_read() -> None:
    class Orders(Pipeline[Any]):
        handle_message: Callable[..., Any] = print

    turns = ReloadTurns()
    service = Service(Roster([Orders(name="a", producer=DummyProducer())]), LagMeter(), reloads=turns)
    task = asyncio.create_task(service.run())
    assert (await turns.ask()).refused == (
        "the pipelines were given to broadway_py.run(), so there are no settings to read again",
    )
    service.stop()
    assert await task == 0
