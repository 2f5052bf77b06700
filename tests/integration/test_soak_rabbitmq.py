"""Random faults for a given time, and the proof at the end. Only ``make soak`` selects it (``SOAK_MINUTES``)."""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import pytest

from broadway_py import Batcher, Processors
from tests.integration.gated_pipelines import Hands, WorkInBatches, assert_none_lost, source
from tests.pipeline.support import check_books, in_flight
from tests.support.main_job import Job
from tests.support.proxy import FaultProxy

pytestmark = [pytest.mark.integration, pytest.mark.soak]

#: Messages of one round; between rounds a fault happens.
ROUND = 2_000


@pytest.mark.timeout(0)
async def test_random_faults_cost_no_message(job: Job, hands: Hands, proxy: FaultProxy) -> None:
    seed = int(os.environ.get("SOAK_SEED", str(random.SystemRandom().randrange(1 << 32))))
    seconds = 60.0 * float(os.environ.get("SOAK_MINUTES", "2"))
    chance, end, published = random.Random(seed), time.monotonic() + seconds, 0
    faults: Counter[str] = Counter()
    print(f"soak: seed {seed}, {seconds:g} s")
    pipeline = WorkInBatches(
        producer=source(job, proxy),
        context=hands,
        processors=Processors(concurrency=4),
        batchers={"default": Batcher(batch_size=20, batch_timeout=0.2)},
    )
    async with pipeline:
        while time.monotonic() < end:
            await job.publish(ROUND)
            published += ROUND
            fault = chance.choice(("cut", "reset", "operator", "pause", "none"))
            await job.until_noted(published - chance.randrange(1, ROUND), timeout=120.0)
            if fault == "operator":
                await job.broker.close_connections("soak")
            elif fault == "pause":
                await pipeline.pause()
                await pipeline.resume()
            elif fault != "none":
                getattr(proxy, fault)()
            faults[fault] += 1
            check_books(pipeline)
        await job.until_empty(timeout=120.0)
    check_books(pipeline)
    assert in_flight(pipeline) == 0
    # The test's own connection is gone too, if an operator closed it.
    assert await job.broker.connections() <= 1
    assert_none_lost(job)
    repeated = len(job.counted.duplicates)
    print(f"soak: {published} messages, {dict(faults)}, {repeated} handled more than once, none lost")
