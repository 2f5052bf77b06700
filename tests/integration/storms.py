"""Every fault that a broker, a network or an operator can do to a working pipeline, and what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pamqp.frame
import pytest
from pamqp import commands

from broadway_py import Batcher, Pipeline, RateLimit
from broadway_py.producers.rabbitmq import RabbitMQProducer
from tests.integration.aftermath import reasons, unharmed, until_connected, until_lost, until_told
from tests.integration.gated_pipelines import PREFETCH, Hands, WorkInBatches
from tests.support.main_job import Job
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_node import Node

__all__ = [
    "CANCEL_ON_CRASH",
    "COUNT",
    "FAULTS",
    "MISSING_QUEUE",
    "Fault",
    "Storm",
    "broker_away",
    "own_node",
    "weather",
]

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
    _known: int = 0

    def forget(self) -> None:
        """What has been told and lost so far does not count any more."""
        self.caplog.clear()
        self._known = self.pipeline.stats().producers[0].connections_lost

    @property
    def node(self) -> Node:
        """The broker's node."""
        return own_node(self.job.broker)

    @property
    def lost(self) -> int:
        """How many connections the pipeline has lost, since :meth:`forget`."""
        return self.pipeline.stats().producers[0].connections_lost - self._known

    async def until_lost(self, count: int = 1) -> None:
        """Wait until the pipeline has noticed."""
        await until_lost(self.pipeline, self._known + count)

    async def until_back(self) -> None:
        """Wait until it is connected again."""
        await until_connected(self.pipeline)

    async def until_handled(self, more: int) -> None:
        """Wait until *more* messages than now are handled."""
        await self.job.until_noted(self.job.notes + more)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no handler end in the block, so that there are messages to go on with, however long it takes."""
        self.hands.gate.clear()
        try:
            yield
        finally:
            self.hands.gate.set()


def own_node(broker: RabbitMQ) -> Node:
    """The broker's node: a test without the mark `any_broker` runs on no other."""
    assert broker.node is not None
    return broker.node


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
    await storm.job.broker.close_connections("night shift")


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
        await until_told(storm.caplog, AWAY)


async def broker_killed(storm: Storm) -> None:
    await asyncio.to_thread(storm.node.write_definitions)
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
    await until_told(storm.caplog, MISSING_QUEUE)
    await storm.job.broker.declare_with_dead_letters()
    await storm.until_back()


async def queue_crashed(storm: Storm) -> None:
    # Without `x-cancel-on-ha-failover` the broker consumes anew on the same channel, mixes up what was acked before and
    # after, and some messages stay unacknowledged for it until the channel ends (seen on 3.10.8, once in ten times).
    with storm.held():
        await storm.job.broker.crash_queue()
    await storm.until_handled(300)


async def channel_error(storm: Storm) -> None:
    # Quiet, so that our frame does not land in the middle of one of its.
    await storm.job.until_empty()
    storm.proxy.inject(pamqp.frame.marshal(commands.Basic.Ack(4711), 1))


async def consumer_timeout(storm: Storm) -> None:
    with storm.held():
        with storm.node.consumer_timeout(0.5):
            storm.proxy.cut()  # the broker looks at this setting when a channel opens
            await storm.until_lost()
            await until_told(storm.caplog, FAULTS["consumer-time-out"].told_by(storm.node) or "")
        storm.proxy.cut()


async def memory_alarm(storm: Storm) -> None:
    with ExitStack() as until_all_is_well:
        with storm.held():
            until_all_is_well.enter_context(storm.node.memory_alarm())
        publishing = asyncio.create_task(storm.job.publish(100))
        # Whoever publishes stands still; whoever consumes does not.
        await storm.until_handled(300)
        assert not publishing.done()
    await publishing


# --- what each of them is called --------------------------------------------------------------------------------------

MISSING_QUEUE: Final = r"queue 'work' .*does not exist.*; create it or set declare: active"
AWAY: Final = (
    r"cannot reach .*: connection refused; .*|the connection to .* broke while .*|\S+ closed the "
    r"connection as soon as the login began; .*"
)
CUT: Final = r"the connection to amqps?://\*\*\*@127\.0\.0\.1:\d+/\S+ was cut"
CONSUMER_TIMEOUT: Final = (
    r"RabbitMQ at \S+ closed the channel: PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out\. .*"
)


#: Has the broker cancel the consumer when the queue's process crashes.
CANCEL_ON_CRASH: Final[Mapping[str, Any]] = {"consume_options": {"arguments": {"x-cancel-on-ha-failover": True}}}


@dataclass(frozen=True)
class Fault:
    """A fault and what is said of it."""

    does: Callable[[Storm], Awaitable[None]]
    #: What the log and ``stats().trouble`` say of it, as a pattern; None: the pipeline need not notice.
    tells: str | None
    #: Of the producer.
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: The broker crashes, and may not remember the latest acks.
    forgets_acks: bool = False
    #: From 4.3 on it comes over quorum queues alone, and this is what is said of it there.
    tells_from_4_3: str | None = None

    def told_by(self, node: Node) -> str | None:
        """What is said of it where this *node* is the broker."""
        return self.tells_from_4_3 if self.needs_quorum_queue(node) else self.tells

    def needs_quorum_queue(self, node: Node) -> bool:
        """Whether this *node* does it to quorum queues alone."""
        return self.tells_from_4_3 is not None and node.version >= (4, 3)


FAULTS: Final = {
    "cut": Fault(cut, CUT),
    "reset": Fault(reset, CUT),
    "black-hole": Fault(black_hole, r"\S+ has sent nothing, not even a heartbeat, for 6 s", {"heartbeat": 1}),
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
        r"RabbitMQ at \S+ cancelled the consumer of queue 'work': the queue (was deleted|exists[;,] .*)",
    ),
    "consumer-cancelled": Fault(
        queue_crashed,
        r"RabbitMQ at \S+ cancelled the consumer of queue 'work': the queue (was deleted|exists[;,] .*)",
        CANCEL_ON_CRASH,
        forgets_acks=True,
    ),
    "channel-error": Fault(
        channel_error, r"RabbitMQ at \S+ closed the channel: PRECONDITION_FAILED - unknown delivery tag 4711"
    ),
    "consumer-time-out": Fault(
        consumer_timeout,
        CONSUMER_TIMEOUT,
        tells_from_4_3=r"RabbitMQ at \S+ cancelled the consumer of queue 'work': .*",
    ),
    "memory-alarm": Fault(memory_alarm, None),
}


async def weather(
    fault: Fault, job: Job, hands: Hands, proxy: FaultProxy, caplog: pytest.LogCaptureFixture, *, url: str | None = None
) -> None:
    """Let *fault* come over a pipeline in the middle of its work, and see that it does no harm.

    The pipeline goes to *url*, by way of *proxy*; None: without TLS.
    """
    node = own_node(job.broker)
    if fault.needs_quorum_queue(node):
        await job.broker.delete_queue()
        await job.broker.declare_with_dead_letters(**{"x-queue-type": "quorum"})
    await job.publish(COUNT)
    pipeline = WorkInBatches(
        producer=RabbitMQProducer(
            "work", url or job.broker.through(proxy.port), prefetch_count=PREFETCH, **fault.settings
        ),
        context=hands,
        rate_limit=RateLimit(allowed_messages=100, interval=0.1),
        batchers={"default": Batcher(batch_size=20, batch_timeout=0.1)},
    )
    storm = Storm(job, proxy, hands, pipeline, caplog)
    async with unharmed(pipeline, job, forgets_acks=fault.forgets_acks):
        await job.until_noted(200)
        assert job.notes < COUNT, "it comes in the middle"
        await fault.does(storm)
        tells = fault.told_by(node)
        if tells is not None:
            await until_told(caplog, tells)
            assert storm.lost > 0
    if tells is None:
        assert (storm.lost, reasons(caplog)) == (0, [])
