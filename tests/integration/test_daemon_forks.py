"""Handlers that fork: the child dies of a signal, and is never a second daemon."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from broadway_py.queue import Queue
from tests.support.daemon import Rows, daemon
from tests.support.eventually import eventually_sync

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at descriptors as Linux shows them"),
]

KINDS = ("InLoop", "InThread", "InProcess")
BECAME = {
    "terminated": "-15 -1",
    "runs a loop": "0",
    "holds no port": "0",
    "exits": "3",
    "raises": "1",
    "returns": "0",
}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_child_of_a_handler_ends_alone(tmp_path: Path, workers: int, loop: str) -> None:
    sections = []
    for kind in KINDS:
        async with Queue(tmp_path / f"{kind}.db", "work") as queue:
            await queue.put_many([what.encode() for what in BECAME])
        sections.append(
            f"  {kind}:\n"
            f"    class: tests.integration.forking_pipelines:{kind}\n"
            f"    producer: {{kind: queue, path: {tmp_path}/{kind}.db, queue: work}}\n"
            f"    context: {{file: {tmp_path}/became}}\n"
        )
    file = tmp_path / "a.yaml"
    file.write_text("pipelines:\n" + "".join(sections))
    if loop == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ImportError\n")
    became = tmp_path / "became"
    with daemon(tmp_path, file, options=("--workers", str(workers))) as running:
        running.until_ready()
        eventually_sync(
            lambda: became.exists() and became.read_text().count("\n") == len(KINDS) * len(BECAME),
            timeout=60,
            what="every child has ended, and its parent goes on",
        )
        assert sorted(became.read_text().splitlines()) == sorted(
            f"{kind}, {what}: {code}" for kind in KINDS for what, code in BECAME.items()
        )
        assert running.get("/livez")[0] == 200
        assert running.terminated()[0] == 0
    for kind in KINDS:
        rows = Rows(tmp_path / f"{kind}.db")
        assert (len(rows.put), rows.waiting, rows.dead) == (len(BECAME), set(), set())
    events = [line["event"] for line in running.log]
    assert events.count("stopping") == 1 + (workers if workers > 1 else 0)
    assert not [line for line in running.log if line["level"] in ("warning", "error")]
