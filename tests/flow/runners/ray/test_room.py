"""A cluster without room for the workers of a flow: what is said of it, the end of the wait, and room that comes."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broadway_py.errors import FlowFailed
from broadway_py.flow import Flow
from tests.flow.processes import works
from tests.flow.support import leaves_nothing
from tests.support.eventually import PATIENCE, eventually, eventually_sync

pytestmark = pytest.mark.ray

#: The other tests of the cluster add nodes, and Ray notices some seconds later that they are gone.
SOME = r"\d+"


@pytest.fixture(autouse=True)
def _says_early_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from broadway_py.flow.running.runners import ray as runner  # noqa: PLC0415  # it needs Ray

    monkeypatch.setattr(runner, "_PATIENCE_S", 0.2)


def waits(cluster: Any, resource: str) -> str:
    return (
        f"2 of 2 workers are not ready yet; each needs CPU 1, {resource} 1; "
        f"the cluster at {re.escape(cluster.address)} has CPU {SOME}, {resource} 0, "
        f"of which CPU {SOME}, {resource} 0 are free"
    )


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "waits for" in record.getMessage()]


def flow(resource: str, **settings: Any) -> Any:
    return Flow.from_iterable(range(3)).map(works.same).using("ray", workers=2, resources={resource: 1}, **settings)


def has(resource: str) -> bool:
    import ray  # noqa: PLC0415  # only these tests have it

    cluster: Any = ray  # its types leave this one out
    return any(each["Alive"] and resource in each["Resources"] for each in cluster.nodes())


def test_a_flow_without_room_says_what_it_waits_for_and_gives_up(
    ray_cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with leaves_nothing("ray"), pytest.raises(FlowFailed) as raised:
        flow("anvil", start_timeout=1).to_list()

    told = waits(ray_cluster, "anvil")
    assert re.fullmatch(
        f"ray: {told}; gave up after 1 s: ask for fewer workers, add nodes, or set start_timeout", str(raised.value)
    )
    assert said(caplog)
    assert all(re.search(told, each) for each in said(caplog))


def test_a_flow_goes_on_when_there_is_room(ray_cluster: Any, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flow("hammer").to_list)
        eventually_sync(lambda: said(caplog) or running.done(), what="the flow waited")

        # Here, because Ray sets signal handlers for it.
        node = ray_cluster.add_node(num_cpus=2, resources={"hammer": 2}, object_store_memory=100 << 20)
        try:
            assert sorted(running.result(PATIENCE)) == [0, 1, 2]
        finally:
            ray_cluster.remove_node(node)
            # Until Ray knows it, other flows would have workers there.
            eventually_sync(lambda: not has("hammer"), what="Ray knew that the node is gone")


async def test_a_wait_for_room_can_be_left(ray_cluster: Any, caplog: pytest.LogCaptureFixture) -> None:
    with leaves_nothing("ray"):
        running = asyncio.create_task(flow("tongs").to_list_async())
        await eventually(lambda: said(caplog) or running.done(), what="the flow waited")

        running.cancel()

        with pytest.raises(asyncio.CancelledError):
            await running
