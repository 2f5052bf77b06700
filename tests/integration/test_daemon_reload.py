"""A running daemon reads its settings again on SIGHUP."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from broadway_py.queue import Queue
from tests.support.daemon import Daemon, daemon
from tests.support.eventually import eventually_sync

pytestmark = pytest.mark.integration


class Files:
    """The settings of a daemon with some pipelines, each with a queue and a file of what it has handled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "settings.json"

    def write(self, *, top: dict[str, Any] | None = None, **pipelines: dict[str, Any]) -> None:
        sections = {
            name: {
                "class": "tests.daemon.pipelines:Recorder",
                "producer": {"kind": "queue", "path": str(self.folder / "queue.db"), "queue": name},
                "context": {"file": str(self.folder / f"{name}.handled")},
                **section,
            }
            for name, section in pipelines.items()
        }
        self.settings.write_text(json.dumps({"pipelines": sections, **(top or {})}))

    def put(self, queue: str, *payloads: str) -> None:
        async def put() -> None:
            async with Queue(self.folder / "queue.db", queue) as open_queue:
                await open_queue.put_many([payload.encode() for payload in payloads])

        asyncio.run(put())

    def handled(self, name: str) -> list[str]:
        file = self.folder / f"{name}.handled"
        return file.read_text().split() if file.exists() else []

    def until_handled(self, name: str, *payloads: str) -> None:
        eventually_sync(lambda: sorted(self.handled(name)) == sorted(payloads), what=f"{name} has handled {payloads}")


def reloaded(running: Daemon, *, count: int = 1, event: str = "reloaded") -> dict[str, Any]:
    running.signal(signal.SIGHUP)
    return running.until_logged(event, count=count)


def until_counted(running: Daemon, **counts: int) -> None:
    """Wait until the metric has so many reloads of each outcome."""

    def counted() -> dict[str, float]:
        return {outcome: running.total("broadway_reloads_total", outcome=outcome) for outcome in counts}

    eventually_sync(lambda: counted() == counts, what=f"the reloads are {counts}")


def counted_sources(running: Daemon) -> set[str]:
    """The pipelines whose sources have said how many messages they hold."""
    return {dict(labels)["pipeline"] for name, labels in running.metrics() if name == "broadway_source_messages"}


def test_sighup_restarts_what_has_changed_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write(a={}, b={}, c={})
    with daemon(tmp_path, files.settings) as running:
        running.until_ready()
        files.put("a", "a1")
        files.put("b", "b1")
        files.until_handled("a", "a1")
        files.until_handled("b", "b1")

        files.write(a={}, b={"processors": {"concurrency": 3}}, d={}, top={"log": {"level": "debug"}})
        line = reloaded(running)
        assert (line["outcome"], line["changed"], line["new"], line["gone"], line["unchanged"], line["others"]) == (
            "done",
            ["b"],
            ["d"],
            ["c"],
            1,
            ["log"],
        )
        assert sorted(one["pipeline"] for one in running.log if one["event"] == "drained") == ["b", "c"]
        running.until_ready()
        for name in ("a", "b", "d"):
            files.put(name, f"{name}2")
        files.until_handled("a", "a1", "a2")
        files.until_handled("b", "b1", "b2")
        files.until_handled("d", "d2")
        for name, count in {"a": 2, "b": 2, "d": 1}.items():
            assert running.total("broadway_messages_settled_total", pipeline=name, outcome="acked") == count
        until_counted(running, done=1, refused=0)
        eventually_sync(lambda: counted_sources(running) == {"a", "b", "d"}, what="each source tells what it holds")
        code, _ = running.terminated()
    assert code == 0


def test_wrong_settings_change_nothing_and_every_error_is_in_the_log(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write(a={}, b={})
    with daemon(tmp_path, files.settings) as running:
        running.until_ready()
        files.write(a={"unknown": 1}, b={"class": "nowhere:B"})
        reloaded(running, event="nothing was reloaded", count=2)
        reasons = [line["reason"] for line in running.log if line["event"] == "nothing was reloaded"]
        assert len(reasons) == 2
        assert f"{files.settings}:1: pipelines.a.unknown: unknown setting" in reasons[0]
        assert f"{files.settings}:1: pipelines.b.class: there is no module 'nowhere'" in reasons[1]
        files.settings.unlink()
        assert reloaded(running, event="nothing was reloaded", count=3)["reason"] == (
            f"{files.settings}: cannot be read: No such file or directory"
        )
        running.until_ready()
        until_counted(running, done=0, refused=2)
        assert not [line for line in running.log if line["event"] == "drained"]
        files.put("a", "a1")
        files.until_handled("a", "a1")
        assert running.terminated()[0] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_over_http_answers_when_it_has_ended(tmp_path: Path, workers: int) -> None:
    files = Files(tmp_path)
    files.write(a={}, b={}, top={"workers": workers})
    with daemon(tmp_path, files.settings) as running:
        running.until_ready()
        files.write(a={}, b={"processors": {"concurrency": 3}}, top={"workers": workers})
        status, told = running.posted("/api/reload")
        assert (status, told["done"], told["changed"], told["unchanged"]) == (200, "reload", ["b"], ["a"])
        running.until_ready()
        files.write(a={"unknown": 1}, b={}, top={"workers": workers})
        status, told = running.posted("/api/reload")
        assert status == 422
        assert len(told["refused"]) == 1
        assert told["refused"][0].startswith(f"{files.settings}:1: pipelines.a.unknown: unknown setting")
        assert json.loads(running.get("/api/pipelines")[1])["reload"]["counts"] == {
            "done": 1,
            "refused": 1,
            "failed": 0,
        }
        assert running.terminated()[0] == 0


def test_a_secret_that_was_written_anew_is_used_and_new_code_is_not(tmp_path: Path) -> None:
    files = Files(tmp_path)
    (tmp_path / "shop.py").write_text("from tests.daemon.pipelines import Recorder as Orders\n")
    secret = tmp_path / "path"
    secret.write_text(str(tmp_path / "one.db"))
    producer = {"kind": "queue", "path_file": str(secret), "queue": "a"}
    files.write(a={"class": "shop:Orders", "producer": producer}, b={})
    with daemon(tmp_path, files.settings) as running:
        running.until_ready()
        secret.write_text(str(tmp_path / "queue.db"))
        with (tmp_path / "shop.py").open("a") as code:
            code.write("raise RuntimeError\n")
        assert reloaded(running)["changed"] == ["a"]
        files.put("a", "a1")
        files.until_handled("a", "a1")
        running.until_logged(
            f"the code in {tmp_path}/shop.py has changed, and is not loaded again: only the workers of a daemon load "
            "code anew (workers: 2 or more); restart the process"
        )
        assert running.terminated()[0] == 0


# --- workers ----------------------------------------------------------------------------------------------------------


def test_workers_change_in_place_one_after_the_other(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write(a={}, b={}, top={"workers": 2})
    with daemon(tmp_path, files.settings) as running:
        running.until_ready()
        pids = running.workers()
        files.put("a", "a1")
        files.put("b", "b1")
        files.until_handled("b", "b1")
        files.until_handled("a", "a1")

        files.write(a={}, b={"processors": {"concurrency": 3}}, c={}, top={"workers": 2})
        line = reloaded(running)
        assert (line["outcome"], line["changed"], line["new"], line["gone"]) == ("done", ["b"], ["c"], [])
        assert running.workers() == pids
        running.until_logged("drained", count=2)
        drained = [(one["pipeline"], one["worker"]) for one in running.log if one["event"] == "drained"]
        assert drained == [("b", 0), ("b", 1)]
        running.until_ready()
        for name in ("a", "b", "c"):
            files.put(name, f"{name}2")
        files.until_handled("a", "a1", "a2")
        files.until_handled("b", "b1", "b2")
        files.until_handled("c", "c2")
        for name, count in {"a": 2, "b": 2, "c": 1}.items():
            assert running.total("broadway_messages_settled_total", pipeline=name, outcome="acked") == count
        assert running.terminated()[0] == 0


def test_workers_come_and_go(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write(a={}, top={"workers": 2})
    with daemon(tmp_path, files.settings) as running:
        running.until_ready()
        pids = running.workers()
        files.write(a={}, top={"workers": 3})
        assert reloaded(running)["others"] == ["workers"]
        assert [*running.workers()] == [0, 1, 2]
        running.until_ready()
        files.write(a={"processors": {"concurrency": 3}}, top={"workers": 2})
        assert reloaded(running, count=2)["others"] == ["workers"]
        assert running.until_logged("worker ended for a reload")["index"] == 2
        assert {**running.workers(), **pids} == running.workers()
        running.until_ready()
        files.put("a", *(f"a{number}" for number in range(20)))
        files.until_handled("a", *(f"a{number}" for number in range(20)))
        files.write(a={}, top={"workers": 1})
        assert reloaded(running, event="nothing was reloaded")["reason"] == (
            f"{files.settings}:1: workers: a change from 2 to 1 takes effect at a restart only, because pipelines move "
            "into other processes; put it back to reload the others"
        )
        assert running.terminated()[0] == 0


def test_new_code_comes_with_fresh_workers(tmp_path: Path) -> None:
    files = Files(tmp_path)
    code = tmp_path / "shop.py"
    shop = "from tests.daemon.pipelines import Recorder\nclass Orders(Recorder):\n    {}\n"
    code.write_text(shop.format("pass"))
    files.write(a={"class": "shop:Orders"}, top={"workers": 2})
    with daemon(tmp_path, files.settings) as running:
        running.until_ready()
        pids = running.workers()

        code.write_text("this is no code\n")
        assert (
            "the module 'shop' failed while it was imported"
            in (reloaded(running, event="nothing was reloaded")["reason"])
        )
        assert running.workers() == pids

        code.write_text(shop.format("async def setup(self): raise RuntimeError"))
        assert reloaded(running, event="not everything was reloaded")["reason"] == (
            "worker 0: it cannot start since a reload (its pipelines cannot start) and is started again"
        )
        assert running.workers()[1] == pids[1]
        assert running.get("/readyz")[0] == 503

        code.write_text(
            shop.format(
                "async def handle_message(self, message):\n"
                "        message.data += b'-new'\n"
                "        await super().handle_message(message)"
            )
        )
        running.until_ready()
        assert reloaded(running, count=2)["others"] == ["code"]
        assert not set(pids.values()) & set(running.workers().values())
        running.until_ready()
        files.put("a", *(f"a{number}" for number in range(10)))
        files.until_handled("a", *(f"a{number}-new" for number in range(10)))
        assert running.terminated()[0] == 0


def test_settings_with_which_a_worker_cannot_start_come_back_everywhere(tmp_path: Path) -> None:
    files = Files(tmp_path)
    (tmp_path / "shop.py").write_text(
        "from tests.daemon.pipelines import Recorder\n"
        "import os\n"
        "class Orders(Recorder):\n"
        "    async def setup(self):\n"
        "        if self.context.get('once') and os.path.exists(self.context['once']):\n"
        "            raise RuntimeError\n"
        "        if self.context.get('once'):\n"
        "            open(self.context['once'], 'w').close()\n"
    )
    section = {"class": "shop:Orders"}
    files.write(a=section, top={"workers": 2})
    with daemon(tmp_path, files.settings) as running:
        running.until_ready()
        pids = running.workers()
        context = {"file": str(tmp_path / "a.handled"), "once": str(tmp_path / "once")}
        files.write(a={**section, "context": context}, top={"workers": 2})
        reloaded(running, event="not everything was reloaded", count=2)
        assert [one["reason"] for one in running.log if one["event"] == "not everything was reloaded"][-2:] == [
            (
                "worker 1: pipeline 'a' cannot start with its new settings: its start raised RuntimeError; "
                "it runs with its old settings again"
            ),
            "all workers run with their old settings again",
        ]
        assert running.workers() == pids
        running.until_ready()
        files.put("a", "a1")
        files.until_handled("a", "a1")
        files.write(a=section, top={"workers": 2})
        assert reloaded(running, count=2)["unchanged"] == 1
        assert running.terminated()[0] == 0


def test_settings_that_end_a_worker_do_not_reach_the_others_and_it_comes_back_with_the_old_ones(tmp_path: Path) -> None:
    files = Files(tmp_path)
    (tmp_path / "shop.py").write_text(
        "import os\n"
        "from tests.daemon.pipelines import Recorder\n"
        "class Orders(Recorder):\n"
        "    async def setup(self):\n"
        "        if self.context.get('ends'):\n"
        "            os._exit(3)\n"
    )
    section = {"class": "shop:Orders"}
    files.write(a=section, top={"workers": 2})
    with daemon(tmp_path, files.settings) as running:
        running.until_ready()
        pids = running.workers()
        context = {"file": str(tmp_path / "a.handled"), "ends": True}
        files.write(a={**section, "context": context}, top={"workers": 2})
        assert reloaded(running, event="not everything was reloaded")["reason"] == "worker 0: it has died meanwhile"
        running.until_ready()
        assert running.workers()[1] == pids[1]
        files.put("a", "a1")
        files.until_handled("a", "a1")
        assert running.terminated()[0] == 0
