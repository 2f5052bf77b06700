"""What handlers in worker processes log is written as the daemon's own lines are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broadway_py.queue import Queue
from tests.support.daemon import daemon
from tests.support.eventually import eventually_sync

pytestmark = pytest.mark.integration

CODE = """
import logging, warnings
from broadway_py import Pipeline, Processors
from broadway_py.log import logger

class P(Pipeline):
    processors = Processors(concurrency=1, executor="process")

    def handle_message(self, message):
        logging.getLogger("mine").debug("not asked for")
        logging.getLogger("mine").info("plain amqp://bob:secret@mq/")
        logger("mine").warning("bound", place="there")
        warnings.warn("of old", FutureWarning)
        logging.getLogger("mine").error("last")
"""


@pytest.mark.parametrize("workers", [1, 2])
async def test_lines_of_worker_processes_have_the_form_and_the_level_of_the_daemon(
    tmp_path: Path, workers: int
) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    file = tmp_path / "a.yaml"
    file.write_text("pipelines: {a: {class: 'mine:P', producer: {kind: queue, path: q.db, queue: q}}}\n")
    async with Queue(tmp_path / "q.db", "q") as queue:
        await queue.put(b"1")
    with daemon(tmp_path, file, options=("--workers", str(workers))) as running:
        running.until_logged("last", timeout=90)
        # Another one that is logged right before the end.
        async with Queue(tmp_path / "q.db", "q") as queue:
            await queue.put(b"2")
        eventually_sync(
            lambda: running.total("broadway_messages_settled_total", outcome="acked") == 2,
            timeout=60,
            what="both are handled",
        )
        assert running.terminated()[0] == 0
        lines = list(running.lines)
    said = [json.loads(line) for line in lines]
    ours = [line for line in said if line["logger"] in ("mine", "py.warnings")]
    once = {
        ("plain amqp://***@mq/", "info"),
        ("bound", "warning"),
        ("FutureWarning: of old", "warning"),
        ("last", "error"),
    }
    assert {(line["event"], line["level"]) for line in ours} == once
    assert [line["event"] for line in ours].count("last") == 2
    assert not any("not asked for" in line for line in lines)
    if workers > 1:
        assert {line.get("worker") for line in ours} <= {0, 1}
        assert all("worker" in line for line in ours)
