"""What the HTTP port tells for the live page: workers, settings, history, failures, breaker. And its files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import aiohttp
import pytest

from broadway_py import Message, Pipeline, Processors, Unavailable
from broadway_py.daemon.http.history import EVERY_S, FIGURES
from broadway_py.daemon.http.page_files import PAGE_FILES
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.settings.settings import Http
from broadway_py.producers import DummyProducer
from tests.support.eventually import eventually

CANARY = "canary-2c5e"


class Orders(Pipeline[Any]):
    async def handle_message(self, message: Message[Any]) -> None:
        if message.data == CANARY:
            raise Unavailable(f"the sink refuses {CANARY}")


@asynccontextmanager
async def served() -> AsyncIterator[tuple[aiohttp.ClientSession, Pipeline[Any]]]:
    async with (
        Orders(producer=DummyProducer(), name="orders", processors=Processors(concurrency=2)) as pipeline,
        serve(Http(port=0), LocalView([pipeline], LagMeter())) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        await pipeline.ready(10)
        yield client, pipeline


async def told(client: aiohttp.ClientSession, path: str) -> Any:
    answer = await client.get(path)
    assert answer.status == 200
    return await answer.json()


async def test_a_single_process_is_worker_0() -> None:
    async with served() as (client, _):
        (worker,) = (await told(client, "/api/workers"))["workers"]
        assert (worker["index"], worker["pid"], worker["state"], worker["restarts"], worker["reason"]) == (
            0,
            os.getpid(),
            "running",
            0,
            None,
        )
        assert worker["processors_busy"] == {"orders": [0.0, 0.0]}
        assert worker["since"] <= (await told(client, "/api/pipelines"))["now"]


async def test_the_settings_are_told() -> None:
    async with served() as (client, _):
        orders = (await told(client, "/api/settings"))["pipelines"]["orders"]
        assert orders["processors"]["concurrency"] == 2
        assert orders["producers"]["dummy"]["class"].endswith(":DummyProducer")


async def test_the_history_has_a_point_from_the_start() -> None:
    async with served() as (client, _):

        async def has_point() -> Any:
            history = await told(client, "/api/history")
            return history if history["pipelines"].get("orders", {"time": []})["time"] else None

        history = await eventually(has_point, what="there is a point")
        assert history["every_seconds"] == EVERY_S
        assert set(history["pipelines"]["orders"]) == {"time", *FIGURES}
        newest = history["pipelines"]["orders"]["time"][-1]
        assert (await told(client, f"/api/history?since={newest}"))["pipelines"]["orders"]["time"] == []


@pytest.mark.parametrize("since", ["yesterday", "nan", "inf", "1e999"])
async def test_a_time_that_is_none_is_refused(since: str) -> None:
    async with served() as (client, _):
        answer = await client.get(f"/api/history?since={since}")
        assert (answer.status, await answer.json()) == (
            400,
            {"error": "since: expected seconds since 1970, such as 1764547200.5"},
        )


async def test_failures_and_the_breaker_are_told_without_the_message() -> None:
    async with served() as (client, pipeline):
        await pipeline.submit_batch([CANARY])
        (one,) = (await told(client, "/api/pipelines"))["pipelines"]
        assert CANARY not in json.dumps(one)
        (failure,) = one["failures"]
        assert {key: failure[key] for key in ("type", "stage", "cause", "count", "next")} == {
            "type": "Unavailable",
            "stage": "processors",
            "cause": "raised",
            "count": 1,
            "next": "rejected",
        }
        assert failure["place"].endswith("handle_message")
        assert failure["last"] <= (await told(client, "/api/pipelines"))["now"]
        breaker = one["breaker"]
        assert breaker["open"]
        assert re.fullmatch(r"Unavailable in processors, at .*handle_message", breaker["reason"])
        assert 0.0 <= breaker["next_try_seconds"] <= 1.0
        assert one["processors_busy"] == [pytest.approx(0.0, abs=0.5)] * 2
        assert one["rate_limit"] is None


async def test_a_closed_breaker_has_no_reason() -> None:
    async with served() as (client, _):
        (one,) = (await told(client, "/api/pipelines"))["pipelines"]
        assert one["breaker"] == {"open": False, "reason": None, "next_try_seconds": None}


def test_every_file_of_the_page_is_served_and_every_import_leads_to_one() -> None:
    folder = files("broadway_py.daemon.http").joinpath("page")
    assert {name for name, _ in PAGE_FILES.values()} == {one.name for one in folder.iterdir()}
    for name, kind in PAGE_FILES.values():
        if kind == "text/javascript":
            text = folder.joinpath(name).read_text(encoding="utf-8")
            for imported in re.findall(r' from "(.*)"', text):
                assert imported.removeprefix("./") in {name for name, _ in PAGE_FILES.values()}
