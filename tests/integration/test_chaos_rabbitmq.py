"""A daemon of two workers on a real RabbitMQ while everything around it breaks; counted from outside at the end.

``make soak ARGS="-k chaos"`` selects it, for ``SOAK_MINUTES`` on each kind of queue; ``SOAK_SEED`` repeats the choices
of an earlier run; ``SOAK_LOG`` names a file that gets a line about the run.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aio_pika
import pytest

from tests.integration.chaos_pipelines import Survivor, is_poison
from tests.integration.storms import own_node
from tests.support.counter import HandledIds, ids_in, message_id
from tests.support.daemon import Daemon, daemon
from tests.support.erlang import NodeRefusedError, binary
from tests.support.eventually import eventually
from tests.support.main_job import Job, aside
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_node import PASSWORD, USER
from tests.support.soak_log import note

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.delivery_path("fast")]

#: Messages that the publisher has confirmed at once, and the pause after them, in seconds: 300 messages a second.
PORTION: Final = 60
BREATH: Final = 0.2
#: Seconds of quiet between two faults, from … to.
QUIET: Final = (2.0, 6.0)
#: Seconds that a worker is stopped.
STOPPED: Final = 20.0
#: Seconds that everything may take to calm down at the end.
CALM: Final = 180.0


@dataclass
class Publisher:
    """Publishes with confirms, over every fault; notes in *confirmed* what the broker has confirmed."""

    broker: RabbitMQ
    confirmed: HandledIds
    #: Set while it may publish.
    may_go: asyncio.Event = field(default_factory=asyncio.Event)
    #: Set while nothing of it is on the way.
    is_still: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0

    async def run(self) -> None:
        """Publish until it is cancelled."""
        while True:
            # What is on the way at a fault is sent by nobody again: it may be there, or not.
            with suppress(aio_pika.exceptions.AMQPError, ConnectionError, TimeoutError, OSError):
                connection = await aio_pika.connect(self.broker.url, timeout=5)
                try:
                    await self._publish(await connection.channel(publisher_confirms=True))
                finally:
                    self.is_still.set()
                    with suppress(aio_pika.exceptions.AMQPError, ConnectionError, RuntimeError):
                        await connection.close()
            await asyncio.sleep(BREATH)

    async def _publish(self, channel: aio_pika.abc.AbstractChannel) -> None:
        while True:
            await self.may_go.wait()
            self.is_still.clear()
            names = [f"{self.sent + number:012d}" for number in range(PORTION)]
            self.sent += PORTION
            answers = await asyncio.gather(*(self._one(channel, name) for name in names), return_exceptions=True)
            self.confirmed.add(name for name, answer in zip(names, answers, strict=True) if answer is True)
            self.is_still.set()
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise ConnectionError from answer
            await asyncio.sleep(BREATH)

    async def _one(self, channel: aio_pika.abc.AbstractChannel, name: str) -> bool:
        message = aio_pika.Message(name.encode().ljust(64, b"."), delivery_mode=2, message_id=name)
        await channel.default_exchange.publish(message, routing_key="work", mandatory=True, timeout=30)
        return True


@dataclass
class Chaos:
    """The daemon, its broker, and what breaks both."""

    job: Job
    publisher: Publisher
    kind: str
    start: Callable[[], Daemon]
    running: Daemon
    chance: random.Random

    def some_worker(self) -> int:
        """The process id of a worker that lives."""
        alive = [pid for pid in self.running.workers().values() if _lives(pid)]
        assert alive, "the supervisor keeps workers alive"
        return self.chance.choice(sorted(alive))

    async def until_there_are_workers(self) -> None:
        """Wait until both workers live."""

        def both() -> bool:
            assert self.running.process.poll() is None, "\n".join(self.running.lines[-50:])
            return sum(_lives(pid) for pid in self.running.workers().values()) == 2

        await eventually(both, timeout=60, what="both workers live")

    async def until_empty(self) -> None:
        """Wait until nothing is left in the queue, nor in those for retries."""

        async def empty() -> bool:
            return await self.job.broker.held_outside("work.dead") == 0

        ignored = (NodeRefusedError,)
        await eventually(empty, timeout=CALM, what="the work queue and its retries are empty", ignoring=ignored)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --- what breaks ------------------------------------------------------------------------------------------------------


async def kill_a_worker(chaos: Chaos) -> None:
    os.kill(chaos.some_worker(), signal.SIGKILL)
    await aside(chaos.running.until_logged, "worker started", count=len(chaos.running.workers()) + 1)


async def kill_the_supervisor(chaos: Chaos) -> None:
    chaos.running.signal(signal.SIGKILL)
    await aside(chaos.running.process.wait)
    # Its workers drain themselves beside the next daemon's.
    chaos.running = await aside(chaos.start)


async def stop_a_worker(chaos: Chaos) -> None:
    pid = chaos.some_worker()
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(STOPPED)
    with suppress(ProcessLookupError):  # the supervisor may have replaced it
        os.kill(pid, signal.SIGCONT)


async def restart_the_application(chaos: Chaos) -> None:
    node = own_node(chaos.job.broker)
    await aside(node.stop_application)
    await asyncio.sleep(chaos.chance.uniform(0.5, 5))
    await aside(node.start_application)


async def kill_the_node(chaos: Chaos) -> None:
    node = own_node(chaos.job.broker)
    await aside(node.write_definitions)
    await aside(node.kill)
    await asyncio.sleep(chaos.chance.uniform(0, 3))
    await aside(node.start)


async def delete_the_queue(chaos: Chaos) -> None:
    # Empty: what an operator deletes with a queue is his loss.
    chaos.publisher.may_go.clear()
    try:
        await chaos.publisher.is_still.wait()
        await chaos.until_empty()
        await chaos.job.broker.delete_queue()
        await asyncio.sleep(chaos.chance.uniform(0.5, 3))
        await declare(chaos.job.broker, chaos.kind)
    finally:
        chaos.publisher.may_go.set()


async def change_the_password(chaos: Chaos) -> None:
    node = own_node(chaos.job.broker)
    change = f"rabbit_auth_backend_internal:change_password({binary(USER)}, {{}}, {binary(USER)})"
    await aside(node.ask, change.format(binary("another")))
    try:
        await chaos.job.broker.close_connections("the password has changed")
        await asyncio.sleep(chaos.chance.uniform(1, 6))
    finally:
        await aside(node.ask, change.format(binary(PASSWORD)))


async def raise_a_memory_alarm(chaos: Chaos) -> None:
    with own_node(chaos.job.broker).memory_alarm():
        await asyncio.sleep(chaos.chance.uniform(1, 8))


async def close_the_connections(chaos: Chaos) -> None:
    await chaos.job.broker.close_connections("night shift")


FAULTS: Final[Mapping[str, Callable[[Chaos], Awaitable[None]]]] = {
    act.__name__.replace("_", " "): act
    for act in (
        kill_a_worker,
        kill_the_supervisor,
        stop_a_worker,
        restart_the_application,
        kill_the_node,
        delete_the_queue,
        change_the_password,
        raise_a_memory_alarm,
        close_the_connections,
    )
}


# --- the run ----------------------------------------------------------------------------------------------------------


async def declare(broker: RabbitMQ, kind: str) -> None:
    """The work queue, as somebody else would have declared it."""
    await broker.declare("work", **({"x-queue-type": "quorum"} if kind == "quorum" else {}))


@asynccontextmanager
async def publishing(publisher: Publisher) -> AsyncIterator[None]:
    """Publish while the block runs."""
    publisher.may_go.set()
    task = asyncio.create_task(publisher.run())
    try:
        yield
    finally:
        publisher.may_go.clear()
        await publisher.is_still.wait()
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_whatever_breaks_each_confirmed_message_is_handled_or_dead(
    rabbitmq: RabbitMQ, tmp_path: Path, kind: str
) -> None:
    seed = int(os.environ.get("SOAK_SEED", str(random.SystemRandom().randrange(1 << 32))))
    minutes = float(os.environ.get("SOAK_MINUTES", "2"))
    print(f"chaos: seed {seed}, {minutes:g} min, {kind} queue, RabbitMQ {await aside(version, rabbitmq)}")
    await declare(rabbitmq, kind)
    job = Job(rabbitmq, tmp_path)
    settings = job.settings(
        Survivor,
        producer={"heartbeat": "5s", "backoff_max": "5s"},
        failure={"attempts": 3, "backoff": [0.2, 2.0], "breaker": None},
        processors={"concurrency": 4},
        batchers={"default": {"batch_size": 20, "batch_timeout": "200ms"}},
    )
    chance, done = random.Random(seed), Counter[str]()
    confirmed = HandledIds(job.published)
    bag: list[str] = []
    with ExitStack() as daemons:

        def start() -> Daemon:
            return daemons.enter_context(daemon(tmp_path, settings, options=["--workers", "2"]))

        chaos = Chaos(job, Publisher(rabbitmq, confirmed), kind, start, await aside(start), chance)
        end = time.monotonic() + 60 * minutes
        async with publishing(chaos.publisher):
            while time.monotonic() < end:
                await asyncio.sleep(chance.uniform(*QUIET))
                await chaos.until_there_are_workers()
                if not bag:  # each fault once, in any order, and then anew
                    bag = chance.sample(sorted(FAULTS), len(FAULTS))
                name = bag.pop()
                done[name] += 1
                print(f"chaos: {name}")
                await FAULTS[name](chaos)
        await chaos.until_empty()
        code, _ = await aside(chaos.running.terminated)
        assert code == 0, "\n".join(chaos.running.lines[-50:])
    confirmed.close()
    await counted(job, chaos, minutes=minutes, seed=seed, faults=done)


async def counted(job: Job, chaos: Chaos, *, minutes: float, seed: int, faults: Counter[str]) -> None:
    """See that each confirmed message is somewhere where it should be, and nothing else is."""
    asked, handled = set(ids_in(job.published)), Counter(ids_in(job.handled))
    dead = await letters(job.broker)
    lost = asked - handled.keys() - dead
    repeated = sum(times - 1 for times in handled.values())
    print(f"chaos: {len(asked)} confirmed, {len(handled)} handled, {len(dead)} dead letters, {repeated} repetitions")
    print(f"chaos: {dict(sorted(faults.items()))}; lost: {sorted(lost)[:20]}")
    await asyncio.to_thread(
        note,
        minutes=minutes,
        what=f"chaos, {chaos.kind}, {await aside(version, job.broker)}",
        seed=seed,
        published=len(asked),
        faults=faults.total(),
        repeated=repeated,
        lost=len(lost),
        grown=None,
    )
    assert lost == set()
    assert {name for name in asked if is_poison(name)} <= dead, "what never succeeds is among the dead letters"
    assert not any(is_poison(name) for name in handled)
    made = {f"{number:012d}" for number in range(chaos.publisher.sent)}
    assert handled.keys() | dead <= made, "nothing is there that nobody has published"
    assert await job.broker.held_outside("work.dead") == 0


async def letters(broker: RabbitMQ) -> set[str]:
    """The ids of all dead letters, which are taken off."""
    await broker.disconnect()
    found: set[str] = set()
    if await broker.ready("work.dead") is None:
        return found
    queue = await broker.channel.get_queue("work.dead")
    while (letter := await queue.get(fail=False, no_ack=True)) is not None:
        found.add(message_id(letter.body))
    return found


def version(broker: RabbitMQ) -> str:
    """The version of the broker."""
    return own_node(broker).ask("rabbit_misc:version()").strip('"')
