"""Four workers on four partitions, two of them killed at a time: every message counts once, as counted from outside."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py.queue import NewMessage, Queue
from tests.integration.parted_kills import PARTITIONS, gather, keys_of_partitions, kill_two, settings, until_below
from tests.integration.window_counts import check, messages
from tests.support.daemon import daemon
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.faults]

MESSAGES: Final = 8_000
#: How many messages are left each time that two workers are killed.
MARKS: Final = (7_000, 4_500, 2_000)


async def killed_two_at_a_time(
    folder: Path, source: dict[str, Any], left: Callable[[], Awaitable[int]], sent: Sequence[str]
) -> None:
    chance = random.Random(7)
    killed: set[int] = set()
    with daemon(folder, settings(folder, source, per_second=4_000)) as running:
        for mark in MARKS:
            await until_below(left, mark, timeout=60)
            killed |= set(await kill_two(running, chance))
        await eventually(lambda: gather(folder) >= len(sent), timeout=60, what="all messages are in the results")
        await until_below(left, 1, timeout=60)
        code, _ = await asyncio.to_thread(running.terminated)
    assert code == 0, "\n".join(running.lines)
    assert len(killed) > 2, "other workers each time"
    await asyncio.to_thread(check, folder, sent)
    keys = keys_of_partitions(folder)
    assert len(keys) == PARTITIONS
    assert not any(one & other for one, other in combinations(keys, 2)), "a key lies in one partition"


async def test_every_message_of_a_parted_embedded_queue_counts_once(tmp_path: Path) -> None:
    path = str(tmp_path / "q.db")
    sent = messages(5, MESSAGES)
    async with Queue(path, "orders") as queue:
        await queue.put_many([NewMessage(data=line, key=json.loads(line)["key"]) for line in sent])
        source = {"kind": "queue", "path": path, "queue": "orders"}
        await killed_two_at_a_time(tmp_path, source, queue.size, sent)
