"""What the daemon says of the messages in a source, with one process and with several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broadway_py.queue import NewMessage, Queue
from tests.support.daemon import Daemon, daemon
from tests.support.eventually import eventually_sync

pytestmark = pytest.mark.integration


async def settings(folder: Path, *, producer: str = "", more: str = "") -> Path:
    """Five messages wait for an hour, each with a key."""
    async with Queue(folder / "q.db", "orders") as queue:
        await queue.put_many([NewMessage(data=b"later", delay=3600, key=str(number)) for number in range(5)])
    path = folder / "a.yaml"
    path.write_text(
        f"""\
pipelines:
  orders:
    class: tests.daemon.pipelines:Recorder
    producer: {{kind: queue, path: {folder}/q.db, queue: orders{producer}}}
    context: {{file: {folder}/handled}}
{more}"""
    )
    return path


def sources(running: Daemon) -> dict[str, dict[str, Any] | None]:
    (pipeline,) = json.loads(running.get("/api/pipelines")[1])["pipelines"]
    found = {one["name"]: one["source"] for one in pipeline["producers"]}
    for source in found.values():
        assert source is None or 0.0 <= source.pop("age_seconds") < 60.0
    return found


@pytest.mark.parametrize("workers", [1, 3])
async def test_each_message_counts_once_however_many_workers_see_it(tmp_path: Path, workers: int) -> None:
    with daemon(tmp_path, await settings(tmp_path, more=f"workers: {workers}\n")) as running:
        running.until_ready()
        wanted = {"queue": {"ready": 0, "delayed": 5, "dead": 0, "trouble": None}}
        eventually_sync(lambda: sources(running) == wanted, what=f"the source has {wanted}")
        found = {
            dict(labels)["state"]: value
            for (name, labels), value in running.metrics().items()
            if name == "broadway_source_messages"
        }
        assert found == {"ready": 0, "delayed": 5, "dead": 0}


async def test_partitions_in_several_workers_add_up(tmp_path: Path) -> None:
    with daemon(tmp_path, await settings(tmp_path, producer=", partitions: 3", more="workers: 2\n")) as running:
        running.until_ready()
        unknown = {"ready": 0, "delayed": None, "dead": None, "trouble": None}
        wanted = {
            "queue.0": {"ready": 0, "delayed": 5, "dead": 0, "trouble": None},
            "queue.1": unknown,
            "queue.2": unknown,
        }
        eventually_sync(lambda: sources(running) == wanted, what=f"the sources have {wanted}")
        assert running.total("broadway_source_messages") == 5
