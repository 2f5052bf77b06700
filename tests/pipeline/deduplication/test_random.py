"""Any mixture of repeats, failures and lost acks: an id that succeeded is handled no more, and the books are right."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py import Batcher, Message, Processors
from tests.pipeline.aggregation.support import ObeyingStore, use
from tests.pipeline.deduplication.support import PLAIN, Once, figures
from tests.pipeline.support import ManualProducer, Recorder, finish, outcomes

IDS = "abcd"


@given(
    lives=st.lists(st.lists(st.sampled_from(IDS), max_size=12), min_size=1, max_size=3),
    failures=st.fixed_dictionaries(dict.fromkeys(IDS, st.integers(0, 3))),
    lost=st.sets(st.integers(0, 10)),
    shape=st.tuples(st.integers(1, 3), st.booleans(), st.booleans()),
)
@settings(deadline=None, max_examples=100)
def test_an_id_that_succeeded_is_handled_no_more(
    lives: list[list[str]],
    failures: dict[str, int],
    lost: set[int],
    shape: tuple[int, bool, bool],
) -> None:
    concurrency, is_ordered, is_batched = shape
    deliveries: Counter[str] = Counter()
    handled: Counter[str] = Counter()
    left = dict(failures)
    store = ObeyingStore()

    async def lose(_: object) -> None:
        if len(recorder.calls) in lost:
            raise ConnectionError

    recorder = Recorder(lose)

    class Failing(Once):
        async def handle_message(self, message: Message[Any]) -> None:
            handled[message.data] += 1
            await asyncio.sleep(0)
            if left[message.data]:
                left[message.data] -= 1
                raise ValueError

    async def live(names: list[str]) -> None:
        producer = ManualProducer(*(recorder.message(name, message_id=name) for name in names))
        producer.feed.end()
        pipeline = Failing(
            producer=producer,
            processors=Processors(concurrency=concurrency, max_demand=4),
            batchers={"default": Batcher(batch_size=3, batch_timeout=1.0)} if is_batched else {},
            partition_by=lambda message: IDS.index(message.data) % 2 if is_ordered else None,
            failure=PLAIN.model_copy(update={"attempts": 1}),
            ordered=is_ordered,
        )
        ended = await finish(pipeline)
        assert sum(ended.values()) == len(names)
        assert figures(pipeline).waiting == 0
        assert outcomes(pipeline).keys() <= {"acked", "rejected", "unknown"}

    with pytest.MonkeyPatch.context() as patched:
        use(patched, store)
        for names in lives:
            deliveries.update(names)
            asyncio.run(live(names))

    # As often as it failed, and once more; or as often as it was delivered.
    assert handled == +Counter({name: min(deliveries[name], failures[name] + 1) for name in IDS})
    recorder.check_once()
