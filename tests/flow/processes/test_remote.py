"""The two ends of an edge between processes, with both processes in this one."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

from broadway_py.flow.running.remote import RemoteEdges, over_socket


async def test_a_stage_is_asked_for_as_many_lists_as_the_other_process_asks_for() -> None:
    asked: asyncio.Queue[tuple[object, int]] = asyncio.Queue()
    outlet = SimpleNamespace(ask=lambda edge, count: asked.put_nowait((edge, count)))
    edge: Any = SimpleNamespace(outlet=outlet)
    failures: list[object] = []
    here, there = socket.socketpair()
    sender, taker = (
        RemoteEdges({1: over_socket(here)}, failures.append),
        RemoteEdges({0: over_socket(there)}, failures.append),
    )
    sender.add_consumer(1, 7, "map 1", 0, lambda _: edge)
    producer = taker.producer(0, 7, "map 1")
    sender.open()
    taker.open()
    try:
        for count in (1, 3):
            producer.ask(edge, count)
            assert await asyncio.wait_for(asked.get(), 30) == (edge, count)
    finally:
        sender.close()
        taker.close()
    assert (failures, asked.qsize()) == ([], 0)
