"""Dead letters of an embedded queue that are put back over HTTP."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broadway_py import Message, Pipeline
from broadway_py.daemon.dead_letters import replays
from broadway_py.daemon.dead_letters.replays import Replays
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView, Replaying
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.settings.settings import Http, Settings, read_settings
from broadway_py.errors import OptionsError
from broadway_py.producers import DummyProducer
from broadway_py.testing import FakeClock
from tests.daemon.test_dlq import put_dead_letters
from tests.support.turns import turns


class Orders(Pipeline[Any]):
    async def handle_message(self, message: Message[Any]) -> None:
        pass


def settings_of(folder: Path, producer: Any, **more: Any) -> Settings:
    section = {"class": "tests.daemon.pipelines:Plain", **({} if producer is None else {"producer": producer}), **more}
    path = folder / "settings.json"
    path.write_text(json.dumps({"pipelines": {"orders": section}}))
    return read_settings([path], environ={})


def of_queue(folder: Path, name: str = "q.db") -> dict[str, Any]:
    return {"kind": "queue", "path": str(folder / name), "queue": "orders"}


def counts(folder: Path, name: str = "q.db") -> tuple[int, int]:
    """How many are on the queue, and how many are dead, read without our own code."""
    with closing(sqlite3.connect(folder / name)) as database:
        ((waiting,),) = database.execute("SELECT count(*) FROM messages")
        ((dead,),) = database.execute("SELECT count(*) FROM dead_letters")
    return waiting, dead


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Five dead letters of the queue ``orders`` in ``q.db``."""
    await put_dead_letters(tmp_path / "q.db", [("raised", "ValueError")] * 5)
    return tmp_path


async def test_the_oldest_are_put_back_up_to_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "_PORTION", 2)
    settings = settings_of(folder, of_queue(folder))
    work = Replays(lambda: settings)
    assert await work.replay("orders", None, 3) == (3, None)
    assert counts(folder) == (3, 2)
    assert await work.replay("orders", "queue", 1000) == (2, None)
    assert await work.replay("orders", None, 1000) == (0, None)
    assert counts(folder) == (5, 0)
    with closing(sqlite3.connect(folder / "q.db")) as database:
        payloads = [payload for (payload,) in database.execute("SELECT payload FROM messages ORDER BY id")]
    assert payloads == [b"canary-%d" % number for number in range(5)]


async def test_several_producers_are_named_or_taken_in_their_order(folder: Path) -> None:
    await put_dead_letters(folder / "r.db", [("raised", None)] * 3)
    settings = settings_of(folder, [of_queue(folder), {**of_queue(folder, "r.db"), "name": "other"}])
    work = Replays(lambda: settings)
    assert await work.replay("orders", "other", 2) == (2, None)
    assert (counts(folder), counts(folder, "r.db")) == ((0, 5), (2, 1))
    assert await work.replay("orders", None, 5) == (5, None)
    assert (counts(folder), counts(folder, "r.db")) == ((5, 0), (2, 1))
    assert await work.replay("orders", None, 5) == (1, None)


async def test_the_name_of_the_pipeline_is_the_one_that_it_has(folder: Path) -> None:
    settings = settings_of(folder, of_queue(folder), name="renamed")
    assert await Replays(lambda: settings).replay("renamed", None, 5) == (5, None)


async def test_no_portion_begins_when_the_time_is_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    settings = settings_of(folder, of_queue(folder))
    monkeypatch.setattr(replays, "_PORTION", 2)
    monkeypatch.setattr(replays, "_ENOUGH_S", 0.0)
    assert await Replays(lambda: settings, clock).replay("orders", None, 5) == (0, None)
    assert counts(folder) == (0, 5)


@pytest.mark.parametrize(
    ("producer", "asked", "error"),
    [
        (
            None,
            None,
            "its producer is not in the settings, but in the code; use broadway dlq with --queue or --url",
        ),
        ("queue", "queu", "there is no producer 'queu'; known here: queue; did you mean 'queue'?"),
        ("queue", "queu.0", "there is no producer 'queu.0'; known here: queue; did you mean 'queue'?"),
    ],
)
async def test_what_cannot_be_put_back_is_refused(
    folder: Path, producer: str | None, asked: str | None, error: str
) -> None:
    settings = settings_of(folder, None if producer is None else of_queue(folder))
    with pytest.raises(OptionsError) as refused:
        await Replays(lambda: settings).replay("orders", asked, 5)
    assert str(refused.value) == error
    assert counts(folder) == (0, 5)


async def test_one_is_at_work_at_a_time_and_the_next_one_may_come_when_it_is_cancelled(folder: Path) -> None:
    settings = settings_of(folder, of_queue(folder))
    work = Replays(lambda: settings)
    first = asyncio.create_task(work.replay("orders", None, 5))
    await turns(1)
    with pytest.raises(OptionsError) as refused:
        await work.replay("orders", None, 5)
    assert str(refused.value) == ("dead letters are being put back for another request; try again when that has ended")
    first.cancel()
    await asyncio.wait({first})
    waiting, dead = counts(folder)
    assert waiting + dead == 5
    assert await work.replay("orders", None, 5) == (dead, None)


async def test_a_queue_that_is_gone_is_told(folder: Path) -> None:
    settings = settings_of(folder, of_queue(folder))
    (folder / "q.db").unlink()
    why = f"--queue: {folder}/q.db: no such file"
    assert await Replays(lambda: settings).replay("orders", None, 5) == (0, why)
    status, told = await posted(Replays(lambda: settings), "{}")
    assert (status, told["error"], told["replayed"]) == (503, f"not all dead letters were put back: {why}", 0)


# --- over HTTP


async def posted(replaying: Replaying | None, body: str) -> tuple[int, Any]:
    async with (
        Orders(producer=DummyProducer(), name="orders") as pipeline,
        serve(Http(port=0), LocalView([pipeline], LagMeter()), replaying) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        answer = await client.post(
            "/api/pipelines/orders/replay", data=body, headers={"Content-Type": "application/json"}
        )
        return answer.status, await answer.json()


async def test_a_request_puts_them_back_and_is_told_how_many(folder: Path) -> None:
    settings = settings_of(folder, of_queue(folder))
    told = {"pipeline": "orders", "done": "replay", "heard": [], "not_heard": {}}
    assert await posted(Replays(lambda: settings), '{"limit": 2, "producer": null}') == (200, {**told, "replayed": 2})
    assert await posted(Replays(lambda: settings), "{}") == (200, {**told, "replayed": 3})
    assert counts(folder) == (5, 0)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"limit": 0}', "limit: expected greater than or equal to 1, got 0"),
        ('{"limit": 10001}', "limit: expected less than or equal to 10000, got 10001"),
        ('{"producer": 5}', "producer: expected text, got 5; put quotes around it"),
        ('{"ids": [1]}', "ids: unknown setting; known here: limit, producer"),
    ],
)
async def test_a_wrong_body_puts_nothing_back(folder: Path, body: str, error: str) -> None:
    settings = settings_of(folder, of_queue(folder))
    assert await posted(Replays(lambda: settings), body) == (400, {"error": error})
    assert counts(folder) == (0, 5)


async def test_a_program_without_settings_says_what_to_use() -> None:
    why = "this program has no settings file, which says where they are; use broadway dlq"
    assert await posted(None, "{}") == (
        409,
        {
            "pipeline": "orders",
            "error": f"replay of 'orders' is not possible: {why}",
            "heard": [],
            "not_heard": {},
        },
    )
