"""Reloads under load on a real broker, counted from outside.

A publisher has its ids confirmed, the handlers write what they have done to files of their own, and the broker says
what is left after the exit.
"""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.integration.reload_counts import gaps_of, notes_in, sections, twice_without_cause
from tests.support.counter import ids_in
from tests.support.daemon import Daemon, daemon
from tests.support.eventually import eventually
from tests.support.main_job import Job, aside
from tests.support.rabbitmq import Counts

pytestmark = [pytest.mark.integration, pytest.mark.delivery_path("fast")]

RATE = 2_000


class Load:
    """Two queues with a publisher each, and the settings of the daemon that reads them."""

    def __init__(self, job: Job, folder: Path, workers: int) -> None:
        self.main, self.other = job, Job(job.broker, folder / "other", "other")
        self.folder = folder
        self.settings = folder / "settings.json"
        self._workers = workers
        self._reloads = 0

    async def prepare(self) -> None:
        """Make the queues and the first settings."""
        (self.folder / "other").mkdir()
        await self.other.broker.channel.declare_queue("other", durable=True)
        self.write(2)

    async def publish(self, enough: asyncio.Event) -> None:
        """Publish until it is *enough*; returns when all is confirmed."""

        async def go_on(job: Job, rate: int) -> None:
            while not enough.is_set():
                await job.publish(2 * rate, rate=rate)

        async with asyncio.TaskGroup() as publishing:
            # Two publishers, so that one goes on while the other starts.
            for _ in range(2):
                publishing.create_task(go_on(self.main, RATE // 2))
            publishing.create_task(go_on(self.other, RATE // 10))

    def write(self, concurrency: int) -> None:
        """Write the settings."""
        queues = {
            name: {"kind": "rabbitmq", "queue": queue, "url": self.main.broker.url, **self.main.broker.settings}
            for name, queue in (("main", "work"), ("other", "other"))
        }
        top = {"workers": self._workers, "log": {"format": "json"}}
        self.settings.write_text(json.dumps({"pipelines": sections(self.folder, queues, concurrency), **top}))

    async def reload(self, running: Daemon) -> None:
        """Reload ``main`` with another concurrency."""
        self._reloads += 1
        self.write(2 + self._reloads % 2)
        running.signal(signal.SIGHUP)
        line = await aside(running.until_logged, "reloaded", count=self._reloads)
        assert (line["outcome"], line["changed"], line["unchanged"]) == ("done", ["main"], 1)

    async def refused(self, running: Daemon) -> None:
        """Reload wrong settings."""
        self.settings.write_text(self.settings.read_text().replace('"batchers"', "").replace('"class"', '"clas"'))
        running.signal(signal.SIGHUP)
        await aside(running.until_logged, "nothing was reloaded", count=2)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    "reloads", [2, pytest.param(10, marks=[pytest.mark.soak, pytest.mark.timeout(600)])], ids=["two", "ten"]
)
async def test_reloads_lose_nothing_and_repeat_nothing(tmp_path: Path, job: Job, reloads: int, workers: int) -> None:
    load = Load(job, tmp_path, workers)
    await load.prepare()
    enough = asyncio.Event()
    with daemon(tmp_path, load.settings) as running:
        await aside(running.until_ready)
        publishing = asyncio.create_task(load.publish(enough))
        await load.main.until_published(RATE)
        for number in range(reloads):
            await load.reload(running)
            if number == 0:
                await load.refused(running)
                assert "drained" not in [line["event"] for line in running.log if line.get("pipeline") == "other"]
        # After the last reload, too, there is a first message.
        await load.main.until_published(RATE, more=True)
        enough.set()
        await publishing
        for one in (load.main, load.other):
            await one.until_empty()
        await aside(running.until_ready)
        code, _ = await aside(running.terminated)
        assert code == 0, "\n".join(running.lines)

    for name, queue, one in (("main", "work", load.main), ("other", "other", load.other)):
        notes = notes_in(tmp_path, name)
        handled = [note.id for some in notes for note in some]
        published = set(ids_in(one.published))
        assert published - set(handled) == set()
        assert set(handled) - published == set()
        assert twice_without_cause(notes) == {}
        assert await job.broker.counts(queue) == Counts(0, 0)
    assert await job.broker.counts("work.dead") == Counts(0, 0)
    # One object of the pipeline that did not change, in each worker, and one more of the other for each reload.
    assert len([*tmp_path.glob("other-*.notes")]) == workers
    assert len([*tmp_path.glob("main-*.notes")]) == workers * (1 + reloads)
    gaps = sorted(gaps_of(tmp_path, "main"))
    again = sum(note.redelivered for some in notes_in(tmp_path, "main") for note in some)
    print(
        f"{workers} workers, {reloads} reloads: gaps from {gaps[0]:.3f} to {gaps[-1]:.3f} s, median "
        f"{gaps[len(gaps) // 2]:.3f} s; {again} redelivered"
    )
    await eventually(lambda: running.process.poll() == 0, what="it has ended")
    await job.broker.until_alone()
