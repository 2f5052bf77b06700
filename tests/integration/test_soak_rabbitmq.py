"""Random faults for a given time, and the proof at the end. Only ``make soak`` selects it.

``SOAK_MINUTES`` (2) says how long; ``SOAK_SEED`` repeats the choices of an earlier run; ``SOAK_LOG`` names a file that
gets a line about the run.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from broadway_py import Batcher, Processors, RateLimit
from tests.integration.aftermath import unharmed
from tests.integration.gated_pipelines import Hands, WorkInBatches, assert_none_lost, source
from tests.integration.storms import CANCEL_ON_CRASH, FAULTS, Storm
from tests.pipeline.support import check_books
from tests.support.main_job import Job
from tests.support.proxy import FaultProxy
from tests.support.soak_log import note

pytestmark = [pytest.mark.integration, pytest.mark.soak]

#: Messages of one round; in each of them something happens.
ROUND: Final = 2_000
#: Bytes by which the process may have grown from the first quarter of the time to the end.
GROWTH: Final = 32 * 1024 * 1024


async def pause_and_resume(storm: Storm) -> None:
    await storm.pipeline.pause()
    await storm.pipeline.resume()


async def nothing(storm: Storm) -> None:
    pass


@pytest.mark.timeout(0)
async def test_random_faults_cost_no_message(
    job: Job, hands: Hands, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    seed = int(os.environ.get("SOAK_SEED", str(random.SystemRandom().randrange(1 << 32))))
    minutes = float(os.environ.get("SOAK_MINUTES", "2"))
    chance, begin = random.Random(seed), time.monotonic()
    acts: Mapping[str, Callable[[Storm], Awaitable[None]]] = {
        **{name: fault.does for name, fault in FAULTS.items()},
        "pause": pause_and_resume,
        "none": nothing,
    }
    done: Counter[str] = Counter()
    print(f"soak: seed {seed}, {minutes:g} min")
    pipeline = WorkInBatches(
        producer=source(job, proxy, heartbeat=1, backoff_max=5.0, **CANCEL_ON_CRASH),
        context=hands,
        processors=Processors(concurrency=4),
        rate_limit=RateLimit(allowed_messages=100, interval=0.1),
        batchers={"default": Batcher(batch_size=20, batch_timeout=0.2)},
    )
    storm = Storm(job, proxy, hands, pipeline, caplog)
    published = early = 0
    async with unharmed(pipeline, job, forgets_acks=True):
        while (passed := time.monotonic() - begin) < 60 * minutes:
            if not early and passed > 15 * minutes:
                early = resident()
            published += ROUND
            try:
                await one_round(storm, acts, chance, done)
            except BaseException:
                # What there is to know, for whoever finds the run broken in the morning.
                print(f"soak: broken after {published} messages, {dict(done)}; {await job.broker.counts()}")
                print(f"soak: {job.notes} handled, {pipeline.stats()}")
                raise
        # A fault may have had it made anew, and its tasks are not the pipeline's.
        await job.broker.disconnect()
        late = resident()
    repeated = len(job.counted.duplicates)
    print(f"soak: {published} messages, {dict(sorted(done.items()))}, {repeated} handled more than once, none lost")
    grown = max(0, late - (early or late))
    await asyncio.to_thread(
        note,
        minutes=minutes,
        what=str(job.broker.settings.get("delivery_path", "plain")),
        seed=seed,
        published=published,
        faults=done.total(),
        repeated=repeated,
        lost=len(job.counted.missing),
        grown=grown,
    )
    assert grown < GROWTH, f"the process has grown by {grown / 1e6:.0f} MB"


async def one_round(
    storm: Storm,
    acts: Mapping[str, Callable[[Storm], Awaitable[None]]],
    chance: random.Random,
    done: Counter[str],
) -> None:
    """Publish, let something happen in the middle, and wait until all is handled."""
    job = storm.job
    before = job.notes
    with storm.held():  # as long as it publishes: on a busy machine all would be handled by then
        await job.publish(ROUND)
    name = chance.choice(sorted(acts))
    done[name] += 1
    # Some faults want messages to go on with: those of a second and more, by the rate limit.
    await job.until_noted(before + chance.randrange(1, ROUND // 3), timeout=120)
    storm.forget()
    await acts[name](storm)
    await job.until_empty(timeout=120)
    assert_none_lost(job)
    check_books(storm.pipeline)


def resident() -> int:
    """Bytes of memory that this process has."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
