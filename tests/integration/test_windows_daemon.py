"""A daemon with windows when something breaks: another daemon takes over, the disk is full, a broker flaps."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py.queue import Counts as QueueCounts
from broadway_py.queue import Queue
from tests.integration.window_counts import all_are_in, check, emitted, messages, publish, repeated
from tests.integration.window_pipelines import Counting
from tests.support.daemon import Daemon, daemon
from tests.support.disk import mounted
from tests.support.eventually import eventually
from tests.support.main_job import Job, aside
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import Counts

pytestmark = [pytest.mark.integration, pytest.mark.faults]

FULL: Final = "the disk is full; nothing of this call was stored: free some space and try again"


def settings(folder: Path, producer: dict[str, Any], *, state: Path, rate: int) -> Path:
    """A settings file; *rate* messages a tenth of a second."""
    file = folder / "main.json"
    main = {
        "class": f"{Counting.__module__}:{Counting.__qualname__}",
        "context": {"folder": str(folder), "tells": True},
        "producer": producer,
        "state": str(state),
        "rate_limit": {"allowed_messages": rate, "interval": "100ms"},
    }
    file.write_text(json.dumps({"pipelines": {"main": main}}))
    return file


def handled(*daemons: Daemon) -> Counter[int]:
    """How often each message was handled, as the daemons have told on standard output."""
    lines = [line for one in daemons for line in list(one.lines)]
    return Counter(int(line.split()[1]) for line in lines if line.startswith("handled "))


def reasons(running: Daemon) -> list[str]:
    """Why the pipeline is not ready, or not as it should be."""
    found: list[str] = json.loads(running.get("/readyz")[1])["pipelines"]["main"]["reasons"]
    return found


# --- two daemons ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
async def test_a_second_daemon_stands_by_and_takes_over(tmp_path: Path, end: signal.Signals) -> None:
    count, path, state = 1_200, tmp_path / "q.db", tmp_path / "state.db"
    sent = messages(4, count)
    file = settings(tmp_path, {"kind": "queue", "path": str(path), "queue": "orders"}, state=state, rate=100)
    async with Queue(path, "orders") as queue:
        await queue.put_many(sent)

        async def is_half_done() -> bool:
            return await queue.size() < count // 2

        with daemon(tmp_path, file) as first:
            await aside(first.until_ready)
            with daemon(tmp_path, file) as second:
                says = f"state file {state}: process {first.process.pid} has it; standing by until it is free"
                await aside(second.until_logged, says)
                assert await aside(reasons, second) == [says]
                await eventually(is_half_done, what="half of it is done")
                assert not handled(second), "who stands by takes nothing"
                if end == signal.SIGTERM:
                    code, _ = await aside(first.terminated)
                    assert code == 0, "\n".join(first.lines)
                else:
                    first.signal(end)
                await all_are_in(tmp_path, count)
                await aside(second.until_ready)
                code, _ = await aside(second.terminated)
                assert code == 0, "\n".join(second.lines)
                await aside(first.exit_code)
                times = handled(first, second)
        assert await queue.counts() == QueueCounts(0, 0, 0, 0), "nothing was late: it would be a dead letter"
    await asyncio.to_thread(check, tmp_path, sent)
    if end == signal.SIGTERM:
        assert repeated(emitted(tmp_path)) == 0
        assert times == Counter(range(count)), "each message was handled once, by one of them"


# --- a full disk ------------------------------------------------------------------------------------------------------

#: Lets a process write no more, and returns what lets it write again.
Filling = Callable[[int], Callable[[], None]]


def limit(pid: int) -> Callable[[], None]:
    """Let a process write to no file any more. Every user may do that to its own processes."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))

    def free() -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

    return free


@contextmanager
def small_disk(place: Path) -> Iterator[tuple[Filling, str]]:
    """A disk of its own for the state, and what is said when it is full. Only root may mount: others get the limit."""
    with mounted(place, "4m") as disk:
        if disk is None:
            yield limit, ""
            return

        def fill(_: int) -> Callable[[], None]:
            disk.fill()
            return disk.clear

        yield fill, FULL


@contextmanager
def no_disk(place: Path) -> Iterator[tuple[Filling, str]]:
    """The limit. What is said depends on where it hits: it may not be known whether the checkpoint was stored."""
    place.mkdir()
    yield limit, ""


@pytest.mark.delivery_path("fast")
@pytest.mark.parametrize("kind", ["disk", "limit"])
async def test_on_a_full_disk_nothing_is_acked_or_given_up_and_with_room_it_goes_on(
    job: Job, tmp_path: Path, kind: str
) -> None:
    count, more, prefetch, broker = 1_200, 300, 200, job.broker
    sent = messages(5, count + more)
    producer = {
        "kind": "rabbitmq",
        "queue": "work",
        "url": broker.url,
        "prefetch_count": prefetch,
        "on_failure": "reject",
    }
    state = tmp_path / "disk" / "state.db"
    file = settings(tmp_path, producer, state=state, rate=100)
    await publish(broker, sent[:count])

    async def held() -> int:
        counts = await broker.counts()
        return counts.ready + counts.unacked

    async def is_begun() -> bool:
        return await held() < count - 300

    small = small_disk if kind == "disk" else no_disk
    with small(tmp_path / "disk") as (fill, said), daemon(tmp_path, file) as running:

        def says_why() -> bool:
            why = f"degraded: aggregator 'counts' cannot store its checkpoints: state file {state}: {said}"
            return any(reason.startswith(why) for reason in reasons(running))

        await eventually(is_begun, what="some are acked")
        free = fill(running.process.pid)
        await eventually(lambda: aside(says_why), what="/readyz says why")
        # What was stored before is acked.
        await settled(held)
        before = await held()
        await publish(broker, sent[count:], first=count)
        # Intake has stopped: what comes now waits at the broker.
        await broker.until(ready=before + more - prefetch, unacked=prefetch)
        assert await aside(says_why)
        free()
        await all_are_in(tmp_path, count + more)
        await broker.until(ready=0, unacked=0)
        await aside(running.until_ready)
        assert await aside(reasons, running) == []
        assert handled(running) == Counter(range(count + more)), "nothing was given up, so nothing came again"
    assert await broker.counts("work.dead") == Counts(0, 0)
    await asyncio.to_thread(check, tmp_path, sent)


async def settled(number: Callable[[], Any]) -> None:
    """Wait until *number* says the same ten times, one after the other."""
    last, times = None, 0

    async def same() -> bool:
        nonlocal last, times
        now = await number()
        times = times + 1 if now == last else 0
        last = now
        return times == 10

    await eventually(same, what="it changes no more")


# --- a broker that flaps ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Books:
    """One scrape: for each producer what was received, and what became of it or is in flight; if RabbitMQ is there."""

    received: dict[str, float]
    accounted: dict[str, float]
    is_up: bool

    @classmethod
    def of(cls, running: Daemon) -> Books:
        received: dict[str, float] = {}
        accounted: dict[str, float] = {}
        is_up = True
        for (name, labels), value in running.metrics().items():
            producer = dict(labels).get("producer", "")
            if name == "broadway_messages_received_total":
                received[producer] = received.get(producer, 0) + value
            elif name in {"broadway_messages_settled_total", "broadway_messages_in_flight"}:
                accounted[producer] = accounted.get(producer, 0) + value
            elif name == "broadway_connection_up" and producer == "rabbitmq":
                is_up = value == 1
        return cls(received, accounted, is_up)


@pytest.mark.delivery_path("fast")
async def test_the_books_are_right_at_each_scrape_and_the_windows_exact_while_the_broker_flaps(
    job: Job, proxy: FaultProxy, tmp_path: Path
) -> None:
    count = 2_000
    sent = messages(6, count)
    await publish(job.broker, sent)
    producer = {
        "kind": "rabbitmq",
        "queue": "work",
        "url": job.broker.through(proxy.port),
        "prefetch_count": 200,
        "heartbeat": 1,
        "backoff_max": 0.3,
        "on_failure": "reject",
    }
    file = settings(tmp_path, producer, state=tmp_path / "state.db", rate=100)
    with daemon(tmp_path, file) as running:
        await aside(running.until_ready)
        flapping = asyncio.create_task(proxy.flap(up=0.4, down=0.1, times=4))
        scrapes: list[Books] = []
        while not flapping.done():
            scrapes.append(await aside(Books.of, running))
        await flapping
        await all_are_in(tmp_path, count)
        await job.broker.until(ready=0, unacked=0)
        scrapes.append(await aside(Books.of, running))
    for one in scrapes:
        assert one.received == one.accounted
    assert {one.is_up for one in scrapes} == {False, True}, "some scrapes saw it away"
    assert await job.broker.counts("work.dead") == Counts(0, 0), "nothing was late"
    await asyncio.to_thread(check, tmp_path, sent)
