"""What a broker, a network or an operator does to a working pipeline, and that none of it does any harm."""

from __future__ import annotations

import re
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from broadway_py import Processors, RateLimit
from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.testing import FakeClock
from tests.integration.aftermath import reasons, unharmed, until_connected, waits
from tests.integration.gated_pipelines import PREFETCH, Hands, Work, source
from tests.integration.storms import COUNT, FAULTS, MISSING_QUEUE, Storm, broker_away, own_node, weather
from tests.support.conformance import conforms
from tests.support.erlang import binary
from tests.support.eventually import eventually
from tests.support.main_job import Job
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq_node import USER

pytestmark = [pytest.mark.integration, pytest.mark.faults]


@conforms("R-051", "R-052", "R-053")
@pytest.mark.parametrize("name", FAULTS)
async def test_a_working_pipeline_goes_on_by_itself_after(
    job: Job, hands: Hands, proxy: FaultProxy, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    await weather(FAULTS[name], job, hands, proxy, caplog)


async def test_a_broker_that_is_away_for_a_minute_is_asked_a_few_times_and_found_again(
    job: Job, hands: Hands, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    await job.publish(COUNT)
    pipeline = Work(producer=source(job, proxy), context=hands)
    pipeline.clock = clock = FakeClock()
    storm = Storm(job, proxy, hands, pipeline, caplog)
    async with unharmed(pipeline, job):
        await job.until_noted(200)
        async with broker_away(storm):
            gone = clock.monotonic()
            while clock.monotonic() < gone + 60:
                known = len(reasons(caplog))
                await clock.advance(waits(caplog)[-1] + 0.01)
                await eventually(lambda: len(reasons(caplog)) > known, what="it was asked again")  # noqa: B023  # now
            # The longest waits are 1 + 2 + 4 + 8 + 16 + 30 s; chance may make them shorter.
            assert 6 <= len(reasons(caplog)) <= 40
        await clock.advance(31)
        await storm.until_back()


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_a_minute_of_flapping(
    job: Job, hands: Hands, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    await job.publish(10 * COUNT)
    pipeline = Work(
        producer=source(job, proxy), context=hands, rate_limit=RateLimit(allowed_messages=100, interval=0.1)
    )
    async with unharmed(pipeline, job):
        await job.until_noted(200)
        await proxy.flap(up=1.0, down=1.0, times=30)


async def test_twenty_consumers_come_back_spread_over_time_after_a_restart(
    job: Job, hands: Hands, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    copies = 20
    await job.publish(COUNT)
    pipeline = Work(
        producer=source(job, proxy, concurrency=copies), context=hands, processors=Processors(concurrency=4)
    )
    storm = Storm(job, proxy, hands, pipeline, caplog)
    async with unharmed(pipeline, job, copies=copies):
        await job.broker.until_connected(copies)
        async with broker_away(storm):
            await storm.until_lost(copies)
            del proxy.accepted_at[:]
        await until_connected(pipeline, copies)
    tries = sorted(proxy.accepted_at)
    assert len(tries) >= copies
    # Together they would all come in one tenth of a second.
    busiest = max(sum(first <= one < first + 0.1 for one in tries) for first in tries)
    assert busiest <= copies // 2, f"{busiest} of {len(tries)} attempts came within 100 ms"


# --- what is wrong from the start, and mended later -------------------------------------------------------------------


@asynccontextmanager
async def unknown_user(job: Job, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    name = f"late-{uuid.uuid4().hex}"
    login, actor, anything = binary(name), binary(USER), binary(".*")
    url = job.broker.url.replace(f"{USER}:", f"{name}:")
    password = binary(url.partition(f"{name}:")[2].partition("@")[0])
    node = own_node(job.broker)
    yield url
    node.ask(f"ok = rabbit_auth_backend_internal:add_user({login}, {password}, {actor})")
    node.ask(
        f"ok = rabbit_auth_backend_internal:set_permissions"
        f"({login}, {binary(job.broker.vhost)}, {anything}, {anything}, {anything}, {actor})"
    )


@asynccontextmanager
async def shut_virtual_host(job: Job, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    own_node(job.broker).ask(
        f"ok = rabbit_auth_backend_internal:clear_permissions"
        f"({binary(USER)}, {binary(job.broker.vhost)}, {binary(USER)})"
    )
    yield job.broker.url
    await job.broker.allow()


@asynccontextmanager
async def unknown_host(job: Job, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    asked = socket.getaddrinfo
    known: set[str] = set()

    def answer(host: Any, *arguments: Any, **named: Any) -> Any:
        if host == "late.example":
            if host not in known:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = "127.0.0.1"
        return asked(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    yield job.broker.url.replace("127.0.0.1", "late.example")
    known.add("late.example")


@asynccontextmanager
async def missing_queue(job: Job, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    await job.broker.delete_queue()
    yield job.broker.url
    await job.broker.declare_with_dead_letters()


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (unknown_user, r"RabbitMQ at \S+ refused the login; check user and password in the url"),
        (
            shut_virtual_host,
            r"RabbitMQ at \S+ refused the virtual host; check that it exists and that the user may enter it",
        ),
        (
            unknown_host,
            (
                r"cannot reach amqp://\*\*\*@late\.example:\d+/\S+: the host name is not known; "
                "check host and port, and whether the broker runs"
            ),
        ),
        (missing_queue, MISSING_QUEUE),
    ],
    ids=["password", "virtual-host", "host", "queue"],
)
async def test_what_is_wrong_at_the_start_is_told_until_it_is_mended(
    job: Job,
    hands: Hands,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    mistake: Callable[[Job, pytest.MonkeyPatch], AbstractAsyncContextManager[str]],
    told: str,
) -> None:
    async with AsyncExitStack() as until_mended:
        url = await until_mended.enter_async_context(mistake(job, monkeypatch))
        pipeline = Work(producer=RabbitMQProducer("work", url, prefetch_count=PREFETCH), context=hands)
        pipeline.clock = clock = FakeClock()
        async with unharmed(pipeline, job):
            for attempt in (1, 2, 3):
                # Again and again: the wait begins when what was broken is closed, and nothing tells when that is.
                async def failed(attempt: int = attempt) -> bool:
                    if waits(caplog):
                        await clock.advance(waits(caplog)[-1] + 0.01)
                    return len(reasons(caplog)) >= attempt

                await eventually(failed, what=f"attempt {attempt} failed")
                assert re.fullmatch(told, reasons(caplog)[-1])
                assert pipeline.stats().trouble == f"rabbitmq: {reasons(caplog)[-1]}"
            await until_mended.aclose()

            async def connected() -> bool:
                await clock.advance(waits(caplog)[-1] + 0.01)
                return pipeline.stats().producers[0].connected == 1

            await eventually(connected, timeout=30, what="it is connected")
