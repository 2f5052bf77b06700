"""What can be changed over HTTP, and what a client is told that asks for something else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from broadway_py import Message, Pipeline, Processors, RateLimit
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView, Told
from broadway_py.daemon.pipelines.changes import ConcurrencyChange, RateChange
from broadway_py.daemon.pipelines.roster import Roster
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.settings.settings import Http
from broadway_py.daemon.workers.shared_changes import SharedChanges
from broadway_py.errors import OptionsError
from broadway_py.producers import DummyProducer

API = "/api/pipelines/orders"


class Orders(Pipeline[Any]):
    async def handle_message(self, message: Message[Any]) -> None:
        pass


def orders(**options: Any) -> Orders:
    limit = RateLimit(allowed_messages=100, interval=2.0)
    given = {"name": "orders", "rate_limit": limit, "processors": Processors(concurrency=2), **options}
    return Orders(producer=DummyProducer(), **given)


@asynccontextmanager
async def served(pipeline: Orders) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        serve(Http(port=0), LocalView([pipeline], LagMeter())) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield client


@asynccontextmanager
async def running(pipeline: Orders) -> AsyncIterator[aiohttp.ClientSession]:
    async with pipeline, served(pipeline) as client:
        await pipeline.ready(10)
        yield client


async def posted(client: aiohttp.ClientSession, act: str, body: str | bytes) -> tuple[int, Any]:
    answer = await client.post(f"{API}/{act}", data=body, headers={"Content-Type": "application/json"})
    return answer.status, await answer.json()


def done(act: str) -> tuple[int, Any]:
    return 200, {"pipeline": "orders", "done": act, "heard": [0], "not_heard": {}}


def limit_of(pipeline: Orders) -> tuple[int, float]:
    return pipeline.rate_limit.allowed_messages, pipeline.rate_limit.interval


async def test_the_rate_limit_changes_and_keeps_the_interval_that_is_not_given() -> None:
    pipeline = orders()
    async with running(pipeline) as client:
        assert await posted(client, "rate_limit", '{"allowed_messages": 7}') == done("rate_limit")
        assert limit_of(pipeline) == (7, 2.0)
        body = '{"allowed_messages": 8, "interval": 0.5, "reset": true}'
        assert await posted(client, "rate_limit", body) == done("rate_limit")
        assert limit_of(pipeline) == (8, 0.5)
        assert await posted(client, "rate_limit", '{"allowed_messages": 9, "interval": null}') == done("rate_limit")
        assert limit_of(pipeline) == (9, 0.5)


async def test_the_number_of_processors_changes() -> None:
    pipeline = orders()
    async with running(pipeline) as client:
        for number in (5, 1, 3):
            assert await posted(client, "concurrency", f'{{"processors": {number}}}') == done("concurrency")
            told = await (await client.get(API)).json()
            assert told["topology"]["processors"] == [{"name": "orders.processors", "concurrency": number}]
        assert (await pipeline.submit("a", timeout=10)).data == "a"


async def test_a_pipeline_that_has_not_started_starts_with_what_was_changed() -> None:
    pipeline = orders()
    async with served(pipeline) as client:
        assert await posted(client, "rate_limit", '{"allowed_messages": 7}') == done("rate_limit")
        assert await posted(client, "concurrency", '{"processors": 5}') == done("concurrency")
    async with pipeline:
        assert limit_of(pipeline) == (7, 2.0)
        assert pipeline.topology()["processors"][0]["concurrency"] == 5
        assert (await pipeline.submit("a", timeout=10)).data == "a"


@pytest.mark.parametrize(
    ("act", "body"), [("rate_limit", '{"allowed_messages": 7}'), ("concurrency", '{"processors": 5}')]
)
async def test_a_pipeline_that_has_ended_says_so(act: str, body: str) -> None:
    pipeline = orders()
    async with running(pipeline) as client:
        await pipeline.stop()
        why = "pipeline 'orders' is stopped"
        assert await posted(client, act, body) == (
            503,
            {
                "pipeline": "orders",
                "error": f"not every worker has carried out {act} of 'orders': worker 0: {why}",
                "heard": [],
                "not_heard": {"0": why},
            },
        )


@pytest.mark.parametrize(
    ("options", "act", "body", "why"),
    [
        (
            {"rate_limit": None},
            "rate_limit",
            '{"allowed_messages": 7}',
            "rate_limit: pipeline 'orders' was built without one; nothing to update",
        ),
        (
            {"partition_by": lambda message: message.data},
            "concurrency",
            '{"processors": 5}',
            (
                "processors.concurrency: cannot change while the pipeline runs, because partition_by gives each key to "
                "one processor by their number; stop the pipeline and start it with the new one"
            ),
        ),
    ],
)
async def test_what_a_pipeline_cannot_change_is_refused(options: dict[str, Any], act: str, body: str, why: str) -> None:
    async with running(orders(**options)) as client:
        assert await posted(client, act, body) == (
            409,
            {
                "pipeline": "orders",
                "error": f"{act} of 'orders' is not possible: {why}",
                "heard": [],
                "not_heard": {},
            },
        )


RATE = '{"allowed_messages": 100}'
MANY = '{"processors": 10}'


@pytest.mark.parametrize(
    ("act", "body", "error"),
    [
        ("pause", '{"now": true}', "expected {}, got a JSON object with fields, which this path does not have"),
        ("pause", "[]", "expected a JSON object such as {}, got a list"),
        ("resume", "nonsense", "expected JSON such as {}, got something that cannot be read"),
        ("rate_limit", "", "allowed_messages: required, but missing"),
        ("rate_limit", "{}", "allowed_messages: required, but missing"),
        ("rate_limit", "5", f"expected a JSON object such as {RATE}, got a number"),
        ("rate_limit", "true", f"expected a JSON object such as {RATE}, got a truth value"),
        ("rate_limit", "null", f"expected a JSON object such as {RATE}, got null"),
        ("rate_limit", '"x"', f"expected a JSON object such as {RATE}, got text"),
        ("rate_limit", b"\xff\xfe\xfd", f"expected JSON such as {RATE}, got something that cannot be read"),
        ("rate_limit", "[" * 30_000, f"expected JSON such as {RATE}, got something that cannot be read"),
        (
            "rate_limit",
            '{"allowed_messages": NaN}',
            f"expected JSON such as {RATE}, got something that cannot be read",
        ),
        (
            "rate_limit",
            f'{{"allowed_messages": {"9" * 5000}}}',
            f"expected JSON such as {RATE}, got something that cannot be read",
        ),
        ("rate_limit", '{"allowed_messages": 0}', "allowed_messages: expected greater than or equal to 1, got 0"),
        ("rate_limit", '{"allowed_messages": true}', "allowed_messages: expected a valid integer, got True"),
        ("rate_limit", '{"allowed_messages": "5"}', "allowed_messages: expected a valid integer, got '5'"),
        (
            "rate_limit",
            '{"allowed_messages": 1000000001}',
            "allowed_messages: expected less than or equal to 1000000000, got 1000000001",
        ),
        (
            "rate_limit",
            '{"allowed_messages": 5, "interval": 0}',
            "interval: expected greater than or equal to 0.001, got 0",
        ),
        (
            "rate_limit",
            '{"allowed_messages": 5, "interval": 604801}',
            "interval: expected less than or equal to 604800, got 604801",
        ),
        (
            "rate_limit",
            '{"allowed_messages": 5, "interval": []}',
            "interval: expected a duration in seconds, or text such as '500ms', '2s', '1m', got []",
        ),
        ("rate_limit", '{"allowed_messages": 5, "reset": 1}', "reset: expected true or false, got 1"),
        (
            "rate_limit",
            '{"allowed_messages": 5, "resett": true}',
            "resett: unknown setting; known here: allowed_messages, interval, reset; did you mean 'reset'?",
        ),
        ("concurrency", '{"processors": 0}', "processors: expected greater than or equal to 1, got 0"),
        ("concurrency", '{"processors": 10001}', "processors: expected less than or equal to 10000, got 10001"),
        ("concurrency", "[1]", f"expected a JSON object such as {MANY}, got a list"),
    ],
)
async def test_a_body_that_is_wrong_changes_nothing_and_is_answered_with_what_is_expected(
    act: str, body: str | bytes, error: str
) -> None:
    pipeline = orders()
    async with running(pipeline) as client:
        assert await posted(client, act, body) == (400, {"error": error})
        assert not pipeline.is_paused
        assert (*limit_of(pipeline), pipeline.processors.concurrency) == (100, 2.0, 2)


async def test_a_long_body_and_a_long_name_are_not_sent_back() -> None:
    async with running(orders()) as client:
        assert await posted(client, "rate_limit", " " * 70_000) == (
            413,
            {"error": f"expected a short body such as {RATE}, got a longer one than 64 KiB"},
        )
        status, told = await posted(client, "rate_limit", f'{{"allowed_messages": 1, "{"x" * 60_000}": 1}}')
        assert (status, len(told["error"]) < 600) == (400, True)


@pytest.mark.parametrize("act", ["pause", "resume", "rate_limit", "concurrency"])
async def test_a_pipeline_that_does_not_exist_is_named(act: str) -> None:
    async with running(orders()) as client:
        answer = await client.post(
            f"/api/pipelines/order/{act}", data="{}", headers={"Content-Type": "application/json"}
        )
        assert (answer.status, await answer.json()) == (404, {"error": "no pipeline 'order'; known here: orders"})


async def test_a_pipeline_that_is_removed_while_the_body_comes_is_not_found() -> None:
    pipeline = orders()
    roster = Roster([pipeline])
    view = LocalView(roster, LagMeter())
    async with pipeline, serve(Http(port=0), view) as port, aiohttp.ClientSession() as client:
        body_begun = asyncio.Event()
        removed = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            body_begun.set()
            yield b"{"
            await removed.wait()
            yield b"}"

        asked = asyncio.create_task(
            client.post(
                f"http://127.0.0.1:{port}{API}/pause", data=body(), headers={"Content-Type": "application/json"}
            )
        )
        await body_begun.wait()
        del roster.pipelines["orders"]
        removed.set()
        answer = await asked
        assert (answer.status, await answer.json()) == (404, {"error": "no pipeline 'orders'; known here: "})


async def test_a_worker_answers_a_command_for_a_pipeline_that_a_reload_has_removed() -> None:
    view = LocalView([], LagMeter())
    removed = Told((), {0: "it does not have this pipeline"})
    assert await view.pause("gone") == await view.resume("gone") == await view.change("gone", RateChange(5)) == removed


# --- the shares of workers


def shared(limit: RateLimit, workers: int) -> SharedChanges:
    made = Orders.from_settings(
        {"rate_limit": limit.model_dump()}, name="orders", producer=DummyProducer(), share=(0, workers)
    )
    return SharedChanges([made], workers)


def test_workers_divide_a_rate_limit_as_at_the_start() -> None:
    changes = shared(RateLimit(allowed_messages=10, interval=1.0), 3)
    share = changes.note("orders", RateChange(20, reset=True))
    assert [share(index) for index in range(3)] == [
        RateChange(7, 1.0, reset=True),
        *[RateChange(m, 1.0, reset=True) for m in (7, 6)],
    ]
    # Fewer messages than workers: the interval is longer. The next change is of the whole again.
    share = changes.note("orders", RateChange(1))
    assert share(2) == RateChange(1, 3.0)
    share = changes.note("orders", RateChange(30, 0.5))
    assert share(0) == RateChange(10, 0.5)
    assert changes.of(0) == (("orders", RateChange(10, 0.5)),)


def test_a_reload_forgets_what_was_changed_of_pipelines_with_other_settings() -> None:
    limit = RateLimit(allowed_messages=10, interval=1.0)
    changes = SharedChanges([orders(), orders(name="refunds")], 2)
    for name in ("orders", "refunds"):
        changes.note(name, RateChange(50, 1.0))
        changes.note(name, ConcurrencyChange(4))
    changes.reload([orders(rate_limit=limit), orders(name="refunds")], ["orders"], 2)
    assert changes.of(0) == (("refunds", RateChange(25, 1.0)), ("refunds", ConcurrencyChange(4)))
    assert changes.note("orders", RateChange(20))(1) == RateChange(10, 1.0)
    # Each of another number of workers has its share of what the settings say.
    changes.reload([orders(rate_limit=limit), orders(name="refunds")], [], 4)
    assert changes.of(3) == (("refunds", ConcurrencyChange(4)),)
    assert changes.note("refunds", RateChange(40))(3) == RateChange(10, 2.0)


def test_a_worker_that_starts_later_gets_the_last_values_without_a_new_interval() -> None:
    changes = shared(RateLimit(allowed_messages=10, interval=1.0), 2)
    assert changes.of(1) == ()
    changes.note("orders", RateChange(5, reset=True))
    changes.note("orders", ConcurrencyChange(4))
    changes.note("orders", ConcurrencyChange(3))
    assert changes.of(0) == (("orders", RateChange(3, 1.0)), ("orders", ConcurrencyChange(3)))
    assert changes.of(1) == (("orders", RateChange(2, 1.0)), ("orders", ConcurrencyChange(3)))


def test_each_worker_has_a_limit_of_its_own_with_the_scope_worker() -> None:
    changes = shared(RateLimit(allowed_messages=10, interval=1.0, scope="worker"), 2)
    share = changes.note("orders", RateChange(5))
    assert [share(index) for index in range(2)] == [RateChange(5, 1.0), RateChange(5, 1.0)]


def test_what_workers_cannot_change_is_refused_before_they_are_asked() -> None:
    changes = SharedChanges([orders(rate_limit=None, partition_by=lambda message: message.data)], 2)
    for change in (RateChange(5), ConcurrencyChange(5)):
        with pytest.raises(OptionsError):
            changes.note("orders", change)
    assert changes.of(0) == ()
