"""Every fault that a broker, a network or an operator can do to a working pipeline, and what must hold after each."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pamqp.frame
import pytest
from pamqp import commands

from broadway_py import Batcher, Pipeline, Processors, RateLimit
from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.testing import FakeClock
from tests.integration.aftermath import reasons, unharmed, until_told, waits
from tests.integration.gated_pipelines import PREFETCH, Hands, Work, WorkInBatches, source
from tests.support.conformance import conforms
from tests.support.erlang import binary
from tests.support.eventually import eventually
from tests.support.main_job import Job
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq_node import USER, Node

pytestmark = [pytest.mark.integration, pytest.mark.faults]

#: Messages that wait when the fault comes; the rate limit lets 1,000 through in a second.
COUNT: Final = 1_500


@dataclass
class Storm:
    """A pipeline at work, and everything around it that can break."""

    job: Job
    proxy: FaultProxy
    hands: Hands
    pipeline: Pipeline[Any]
    caplog: pytest.LogCaptureFixture

    @property
    def node(self) -> Node:
        """The broker's node, or a skipped test where it is not ours."""
        return own_node(self.job)

    @property
    def lost(self) -> int:
        """How many connections the pipeline has lost."""
        return self.pipeline.stats().producers[0].connections_lost

    async def until_lost(self, more: int = 1, *, than: int = 0) -> None:
        """Wait until the pipeline has noticed."""
        await eventually(lambda: self.lost >= than + more, timeout=30, what="the loss is noticed")

    async def until_back(self) -> None:
        """Wait until it is connected again."""
        stats = self.pipeline.stats
        await eventually(lambda: stats().producers[0].connected == 1, timeout=60, what="it is connected again")

    async def until_handled(self, more: int) -> None:
        """Wait until *more* messages than now are handled."""
        await self.job.until_noted(self.job.notes + more)


def own_node(job: Job) -> Node:
    """The broker's node, or a skipped test where it is not ours."""
    node = job.broker.node
    if node is None:
        pytest.skip("this fault needs a broker of our own: unset BROADWAY_TEST_AMQP_URL")
    return node


@pytest.fixture(autouse=True)
def the_client_library_logs_no_objects() -> Iterator[None]:
    """The records that pytest keeps would keep its channels alive, and what hangs on them."""
    chatty = logging.getLogger("aiormq.channel")
    chatty.setLevel(logging.ERROR)
    yield
    chatty.setLevel(logging.NOTSET)


# --- the faults -------------------------------------------------------------------------------------------------------


async def cut(storm: Storm) -> None:
    storm.proxy.cut()


async def reset(storm: Storm) -> None:
    storm.proxy.reset()


async def black_hole(storm: Storm) -> None:
    storm.proxy.black_hole()
    await storm.until_lost()
    storm.proxy.reset()
    storm.proxy.heal()


async def slow_link(storm: Storm) -> None:
    storm.proxy.delay(0.05)
    await storm.until_handled(300)
    storm.proxy.heal()


async def operator(storm: Storm) -> None:
    await storm.job.broker.close_connections("night shift", spare_ours=True)


@asynccontextmanager
async def broker_away(storm: Storm) -> AsyncIterator[None]:
    """Stop RabbitMQ, in order; afterwards start it again."""
    await asyncio.to_thread(storm.node.stop_application)
    try:
        await storm.until_lost()
        yield
    finally:
        await asyncio.to_thread(storm.node.start_application)


async def broker_restarted(storm: Storm) -> None:
    async with broker_away(storm):
        await until_told(storm.caplog, r"cannot reach .*: connection refused; .*|the connection to .* broke while .*")


async def broker_killed(storm: Storm) -> None:
    await asyncio.to_thread(storm.node.kill)
    try:
        await storm.until_lost()
    finally:
        await asyncio.to_thread(storm.node.start)


async def flapping(storm: Storm) -> None:
    await storm.proxy.flap(up=1.0, down=1.0, times=3)


async def queue_recreated(storm: Storm) -> None:
    # Empty: what an operator deletes with a queue is his loss.
    await storm.job.until_empty()
    await storm.job.broker.delete_queue()
    await until_told(storm.caplog, r"queue 'work' does not exist on .*; create it or set declare: active")
    await storm.job.broker.declare_with_dead_letters()
    await storm.until_back()


async def queue_crashed(storm: Storm) -> None:
    await storm.job.broker.crash_queue()
    await storm.until_handled(300)


async def channel_error(storm: Storm) -> None:
    # Quiet, so that our frame does not land in the middle of one of its.
    await storm.job.until_empty()
    storm.proxy.inject(pamqp.frame.marshal(commands.Basic.Ack(4711), 1))


async def consumer_timeout(storm: Storm) -> None:
    with storm.node.consumer_timeout(0.5):
        storm.proxy.cut()  # the broker looks at this setting when a channel opens
        await storm.until_lost()
        storm.hands.gate.clear()
        await until_told(storm.caplog, CONSUMER_TIMEOUT)
    storm.proxy.cut()
    storm.hands.gate.set()


async def memory_alarm(storm: Storm) -> None:
    with storm.node.memory_alarm():
        publishing = asyncio.create_task(storm.job.publish(100))
        # Whoever publishes stands still; whoever consumes does not.
        await storm.job.until_noted(COUNT)
        assert not publishing.done()
    await publishing


# --- what each of them is called --------------------------------------------------------------------------------------

CUT: Final = r"the connection to amqp://\*\*\*@127\.0\.0\.1:\d+/\S+ was cut"
CONSUMER_TIMEOUT: Final = (
    r"RabbitMQ at \S+ closed the channel: PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out\. .*"
)


@dataclass(frozen=True)
class Fault:
    """A fault and what is said of it."""

    does: Callable[[Storm], Awaitable[None]]
    #: What the log and ``stats().trouble`` say of it, as a pattern; None: the pipeline need not notice.
    tells: str | None
    #: Of the producer.
    settings: dict[str, Any] = field(default_factory=dict)
    #: The broker crashes, and may not remember the latest acks.
    forgets_acks: bool = False


FAULTS: Final = {
    "cut": Fault(cut, CUT),
    "reset": Fault(reset, CUT),
    "black-hole": Fault(black_hole, r"no sign of life from \S+ for 6 s", {"heartbeat": 1}),
    "slow-link": Fault(slow_link, None),
    "closed-by-the-broker": Fault(operator, r"RabbitMQ at \S+ closed the connection: CONNECTION_FORCED - night shift"),
    "broker-restarted": Fault(
        broker_restarted,
        r"RabbitMQ at \S+ closed the connection: CONNECTION_FORCED - broker forced connection closure with reason "
        rf"'shutdown'|{CUT}",
    ),
    "broker-killed": Fault(broker_killed, CUT, forgets_acks=True),
    "flapping": Fault(flapping, CUT),
    "queue-recreated": Fault(
        queue_recreated,
        r"RabbitMQ at \S+ cancelled the consumer of queue 'work': the queue was deleted, or has moved",
    ),
    "queue-crashed": Fault(queue_crashed, None, forgets_acks=True),
    "consumer-cancelled": Fault(
        queue_crashed,
        r"RabbitMQ at \S+ cancelled the consumer of queue 'work': the queue was deleted, or has moved",
        {"consume_options": {"arguments": {"x-cancel-on-ha-failover": True}}},
        forgets_acks=True,
    ),
    "channel-error": Fault(
        channel_error, r"RabbitMQ at \S+ closed the channel: PRECONDITION_FAILED - unknown delivery tag 4711"
    ),
    "consumer-time-out": Fault(consumer_timeout, CONSUMER_TIMEOUT),
    "memory-alarm": Fault(memory_alarm, None),
}


@conforms("R-051", "R-052", "R-053")
@pytest.mark.parametrize("name", FAULTS)
async def test_a_working_pipeline_goes_on_by_itself_after(
    job: Job, hands: Hands, proxy: FaultProxy, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    fault = FAULTS[name]
    await job.publish(COUNT)
    pipeline = WorkInBatches(
        producer=source(job, proxy, **fault.settings),
        context=hands,
        rate_limit=RateLimit(allowed_messages=100, interval=0.1),
        batchers={"default": Batcher(batch_size=20, batch_timeout=0.1)},
    )
    storm = Storm(job, proxy, hands, pipeline, caplog)
    async with unharmed(pipeline, job, forgets_acks=fault.forgets_acks):
        await job.until_noted(200)
        assert job.notes < COUNT, "it comes in the middle"
        await fault.does(storm)
        if fault.tells is not None:
            await until_told(caplog, fault.tells)
            assert storm.lost > 0
    if fault.tells is None:
        assert (storm.lost, reasons(caplog)) == (0, [])


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
        await eventually(
            lambda: pipeline.stats().producers[0].connected == copies, timeout=60, what="all of them are back"
        )
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
    node = own_node(job)
    yield url
    node.ask(f"ok = rabbit_auth_backend_internal:add_user({login}, {password}, {actor})")
    node.ask(
        f"ok = rabbit_auth_backend_internal:set_permissions"
        f"({login}, {binary(job.broker.vhost)}, {anything}, {anything}, {anything}, {actor})"
    )


@asynccontextmanager
async def shut_virtual_host(job: Job, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    own_node(job).ask(
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
        (missing_queue, r"queue 'work' does not exist on \S+; create it or set declare: active"),
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
                await eventually(lambda: len(reasons(caplog)) == attempt, what=f"attempt {attempt} failed")  # noqa: B023  # now
                assert re.fullmatch(told, reasons(caplog)[-1])
                assert pipeline.stats().trouble == f"rabbitmq: {reasons(caplog)[-1]}"
                if attempt < 3:
                    await clock.advance(waits(caplog)[-1] + 0.01)
            await until_mended.aclose()
            await clock.advance(waits(caplog)[-1] + 0.01)
            await pipeline.ready(30)
