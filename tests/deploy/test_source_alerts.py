"""A backlog and dead letters are planted in real queues: a real Prometheus raises the alerts and ends them again.

Minutes of the rules are seconds here, and the sources are asked twice a second.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from broadway_py import FailurePolicy, Message, Pipeline, Reject
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.settings.settings import Http
from broadway_py.pipeline.runtime import source_counts
from broadway_py.producer_description import AnyProducer
from broadway_py.producers import QueueProducer
from broadway_py.queue import Queue
from tests.deploy.conftest import scraping
from tests.deploy.dashboards import DEPLOY
from tests.integration.failing_pipelines import source
from tests.support.eventually import eventually
from tests.support.prometheus import Alertmanager, Prometheus, alertmanager, program, prometheus
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.delivery_path("fast"), pytest.mark.timeout(300)]

T = TypeVar("T")

RULES: Final = DEPLOY / "prometheus" / "rules" / "broadway.alerts.yml"
BACKLOG, DEAD = "BroadwayBacklogGrowing", "BroadwayDeadLetters"
NAMES: Final = {"orders", "parcels"}


class Work(Pipeline[bytes]):
    _counts_sources = True
    failure = FailurePolicy(attempts=1, breaker=None)

    async def handle_message(self, message: Message[bytes]) -> None:
        if message.data == b"bad":
            raise Reject("it is bad")


@asynccontextmanager
async def watched(folder: Path, *pipelines: Pipeline[Any]) -> AsyncIterator[tuple[Prometheus, Alertmanager]]:
    rules = folder / "rules.yml"
    rules.write_text(re.sub(r"\b(\d+)m\b", r"\1s", RULES.read_text()))
    async with serve(Http(port=0), LocalView(pipelines, LagMeter())) as port, AsyncExitStack() as stack:

        async def begun(made: AbstractContextManager[T]) -> T:
            # In a thread: it looks again and again whether the process is ready, and asks nothing of the loop.
            stack.push_async_callback(asyncio.to_thread, made.__exit__, None, None, None)
            return await asyncio.to_thread(made.__enter__)

        manager = await begun(alertmanager(folder, DEPLOY / "alertmanager" / "alertmanager.yml"))
        config = scraping({"broadway": [f"127.0.0.1:{port}"]}, manager.url.removeprefix("http://"))
        yield await begun(prometheus(folder, config, [rules])), manager


async def until_fire(watching: tuple[Prometheus, Alertmanager], alert: str, pipelines: set[str]) -> None:
    """Wait until *alert* fires for exactly these *pipelines*, and Alertmanager knows it."""
    server, manager = watching

    def of_prometheus() -> set[str]:
        found = server.query(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')
        return {labels["pipeline"] for labels, _ in found}

    def of_manager() -> set[str]:
        return {labels["pipeline"] for labels in manager.alerts() if labels["alertname"] == alert}

    async def seen() -> bool:
        return await asyncio.to_thread(of_prometheus) == pipelines == await asyncio.to_thread(of_manager)

    await eventually(seen, timeout=90, what=f"{alert} fires for {sorted(pipelines)}")


async def test_a_backlog_and_dead_letters_raise_alerts_that_end_when_they_are_gone(
    rabbitmq: RabbitMQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("prometheus")
    program("prometheus-alertmanager")
    monkeypatch.setattr(source_counts, "_EVERY_S", 0.5)
    await rabbitmq.declare()
    reads: dict[str, AnyProducer] = {"orders": source(rabbitmq), "parcels": QueueProducer(tmp_path / "q.db", "q")}
    orders, parcels = (Work(producer=reads[name], name=name) for name in ("orders", "parcels"))
    async with Queue(tmp_path / "q.db", "q") as queue, orders, parcels:

        async def put(body: bytes, count: int) -> None:
            await rabbitmq.publish([body] * count)
            await queue.put_many([body] * count)

        async with watched(tmp_path, orders, parcels) as watching:
            for pipeline in (orders, parcels):
                await pipeline.ready(30)
                await pipeline.pause()
            await until_fire(watching, BACKLOG, set())

            @asynccontextmanager
            async def growing(body: bytes, count: int) -> AsyncIterator[None]:
                async def keep_putting() -> None:
                    while True:
                        await put(body, count)
                        await asyncio.sleep(0.5)  # it grows all the time; there is nothing to wait for

                putting = asyncio.create_task(keep_putting())
                try:
                    yield
                finally:
                    putting.cancel()
                    await asyncio.wait({putting})

            async with growing(b"x", 100):
                await until_fire(watching, BACKLOG, NAMES)
                await until_fire(watching, DEAD, set())
            for pipeline in (orders, parcels):
                await pipeline.resume()
            await until_fire(watching, BACKLOG, set())

            # The alert ends by itself when nothing was added for a while, which is 15 s here.
            async with growing(b"bad", 1):
                await until_fire(watching, DEAD, NAMES)
            await queue.purge()
            await (await rabbitmq.channel.get_queue("work.dead")).purge()
            await until_fire(watching, DEAD, set())
