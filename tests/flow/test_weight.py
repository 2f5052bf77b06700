"""What a stage weighs. The garbage collector looks at all objects again and again, so a stage must not have many."""

from __future__ import annotations

import asyncio
import gc

from broadway_py.flow import Flow


def objects_with(stages: int) -> int:
    """Returns how many objects the garbage collector knows while a function of each of so many stages waits."""
    begun = known = 0
    all_have_begun = asyncio.Event()

    async def wait(number: int) -> int:
        nonlocal begun, known
        begun += 1
        if begun == stages:
            gc.collect()
            known = len(gc.get_objects())
            all_have_begun.set()
        await all_have_begun.wait()
        return number

    flow = Flow.from_iterable(range(stages), stages=stages, max_demand=1).map(wait)
    assert sorted(flow.to_list()) == list(range(stages))
    return known


def test_a_stage_whose_function_waits_has_few_objects() -> None:
    objects_with(1)  # what is made once is there from now on

    each = (objects_with(300) - objects_with(100)) / 200

    assert each < 45
