"""A reload over HTTP, and with the command ``broadway reload``."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from broadway_py.cli import app
from broadway_py.cli.reload import reload
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.pipelines.roster import Roster
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.reload.outcome import Reloaded
from broadway_py.daemon.reload.turns import ReloadTurns
from broadway_py.daemon.settings.settings import Http
from tests.support.eventually import eventually

TOKEN = "canary-token-17ab"


class Served:
    """The HTTP port of a daemon whose reloads end as the test says."""

    def __init__(self, client: aiohttp.ClientSession, port: int) -> None:
        self.client = client
        self.port = port
        self.result = Reloaded(unchanged=("a",), changed=("b",), notes=("the code is old",))
        self.gate = asyncio.Event()
        self.gate.set()

    async def reload(self) -> Reloaded:
        await self.gate.wait()
        return self.result

    async def post(self, token: str | None = TOKEN, body: str = "{}") -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        answer = await self.client.post("/api/reload", data=body, headers=headers)
        return answer.status, await answer.json()

    async def get(self, path: str) -> Any:
        return await (await self.client.get(path)).json()


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    (folder / "token").write_text(TOKEN)
    turns = ReloadTurns()
    view = LocalView(Roster(), LagMeter(), turns)
    async with (
        serve(Http(port=0, token_file=str(folder / "token")), view) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        made = Served(client, port)
        turns.begin(made.reload, asyncio.get_running_loop().create_task)
        yield made
        made.gate.set()


async def test_a_reload_needs_the_token_and_answers_with_what_was_done(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        assert (await it.post(token=None))[0] == 401
        assert (await it.get("/api/reload"))["last"] is None
        assert await it.post() == (
            200,
            {
                "done": "reload",
                "unchanged": ["a"],
                "changed": ["b"],
                "new": [],
                "gone": [],
                "others": [],
                "refused": [],
                "failed": [],
                "notes": ["the code is old"],
            },
        )
        assert (await it.post(body='{"x": 1}'))[0] == 400
        told = await it.get("/api/reload")
        assert told["counts"] == {"done": 1, "refused": 0, "failed": 0}
        assert (told["running"], told["last"]["outcome"], told["last"]["changed"]) == (False, "done", ["b"])
        assert (await it.get("/api/pipelines"))["reload"] == told
        assert "reload" not in await it.get("/readyz")


async def test_why_settings_are_refused_is_told_to_who_has_the_token_alone(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        it.result = Reloaded(refused=("a.yaml:3: password: expected text, got 'canary-81'", "b is wrong"))
        status, told = await it.post()
        assert (status, told["error"]) == (422, "a.yaml:3: password: expected text, got 'canary-81'; b is wrong")
        assert told["refused"] == [*it.result.refused]
        for path in ("/api/reload", "/api/pipelines", "/readyz", "/api/workers"):
            assert "canary-81" not in await (await it.client.get(path)).text()
        assert (await it.get("/readyz"))["reload"]["last"]["outcome"] == "refused"


async def test_what_has_failed_is_told_by_readyz_until_a_reload_succeeds(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        it.result = Reloaded(changed=("b",), failed=("pipeline 'a' cannot start",))
        status, told = await it.post()
        assert (status, told["error"]) == (503, "pipeline 'a' cannot start")
        ready = await it.client.get("/readyz")
        assert (ready.status, (await ready.json())["reload"]["last"]["failed"]) == (200, ["pipeline 'a' cannot start"])
        it.result = Reloaded()
        await it.post()
        assert "reload" not in await it.get("/readyz")


async def test_a_reload_that_takes_long_is_answered_before_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broadway_py.daemon.http.reloads._WAIT_S", 0.05)
    async with served(tmp_path) as it:
        it.gate.clear()
        status, told = await it.post()
        assert (status, told["running"]) == (202, True)
        assert (await it.get("/readyz"))["reload"]["running"] is True
        assert (await it.client.get("/livez")).status == 200
        assert await metric(it, "broadway_reload_running") == {(): 1.0}
        it.gate.set()
        await eventually(lambda: ended(it), what="it has ended")
        assert (await it.get("/api/reload"))["last"]["outcome"] == "done"
        assert await metric(it, "broadway_reload_running") == {(): 0.0}
        assert await metric(it, "broadway_reloads_total") == {("done",): 1.0, ("refused",): 0.0, ("failed",): 0.0}


async def ended(it: Served) -> bool:
    return (await it.get("/api/reload"))["running"] is False


async def metric(it: Served, name: str) -> dict[tuple[str, ...], float]:
    text = await (await it.client.get("/metrics")).text()
    families = text_string_to_metric_families(text)
    return {tuple(one.labels.values()): one.value for each in families for one in each.samples if one.name == name}


# --- the command ------------------------------------------------------------------------------------------------------


async def command(*arguments: str) -> tuple[int, str, str]:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["reload", *arguments])
    return result.exit_code, result.stdout, result.stderr


def settings(folder: Path, port: int) -> str:
    file = folder / "settings.json"
    http = {"port": port, "token_file": str(folder / "token")}
    file.write_text(json.dumps({"pipelines": {"a": {"class": "a:B"}}, "http": http}))
    return str(file)


async def test_the_command_says_what_was_changed(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        file = settings(tmp_path, it.port)
        it.result = Reloaded(("a",), ("b", "c"), ("d",), ("e",), ("log",), notes=("the code is old",))
        assert await command(file) == (
            0,
            "reloaded: changed b, c; new d; gone e; also changed: log\n",
            "broadway: the code is old\n",
        )
        it.result = Reloaded(("a",))
        at = ("--url", f"http://127.0.0.1:{it.port}", "--token-file", str(tmp_path / "token"))
        assert await command(file, *at) == (0, "reloaded: nothing has changed\n", "")


async def test_the_command_ends_with_2_for_wrong_settings_and_with_1_for_what_has_failed(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        file = settings(tmp_path, it.port)
        it.result = Reloaded(refused=("a.yaml:3: wrong", "b.yaml:4: wrong, too"))
        assert await command(file) == (2, "", "broadway: a.yaml:3: wrong\nbroadway: b.yaml:4: wrong, too\n")
        it.result = Reloaded(failed=("pipeline 'a' cannot start",))
        assert await command(file) == (
            1,
            "",
            f"broadway: the daemon at http://127.0.0.1:{it.port} could not do this now: pipeline 'a' cannot start\n",
        )
        (tmp_path / "other").write_text("another-token-17ab")
        code, _, said = await command(file, "--token-file", str(tmp_path / "other"))
        assert (code, "does not accept this token" in said) == (1, True), said
    code, _, said = await command(file)
    assert (code, "no daemon answers" in said) == (1, True)


async def test_the_command_waits_for_a_long_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broadway_py.daemon.http.reloads._WAIT_S", 0.05)
    asked = threading.Event()

    def wait(_seconds: float) -> None:
        asked.set()

    monkeypatch.setattr(sys.modules[reload.__module__], "time", SimpleNamespace(sleep=wait))
    async with served(tmp_path) as it:
        file = settings(tmp_path, it.port)
        for result, expected in (
            (Reloaded(changed=("a",)), (0, "reloaded: changed a\n", "")),
            (Reloaded(failed=("a", "b")), (1, "", "broadway: a; b\n")),
            (Reloaded(refused=("a",)), (2, "", "broadway: nothing was reloaded; the daemon's log says why\n")),
        ):
            it.gate.clear()
            it.result = result
            asked.clear()
            asking = asyncio.create_task(command(file))
            await eventually(asked.is_set, what="the answer has come before the end")
            it.gate.set()
            assert await asking == expected
