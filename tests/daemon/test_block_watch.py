"""A loop that does not answer is named, with the place that keeps it busy, while it does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from broadway_py.daemon.process.block_watch import BlockWatch


def test_a_blocked_loop_is_named_with_its_place_and_told_when_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    told, free, went_on = threading.Event(), threading.Event(), threading.Event()
    answers: list[Callable[[], object]] = []

    def the_handler_that_blocks() -> None:
        free.wait(10)

    loop = threading.Thread(target=the_handler_that_blocks, daemon=True)
    loop.start()

    def note(record: Any) -> bool:
        if "blocks the event loop" in str(record.msg):
            told.set()
            answers[0]()
        if "runs again" in str(record.msg):
            went_on.set()
        return True

    caplog.handler.addFilter(note)
    watch = BlockWatch(answers.append, lambda: loop.ident, every_s=0.02)
    watch.start()
    try:
        assert told.wait(10)
        assert went_on.wait(10)
    finally:
        watch.stop()
        free.set()
        caplog.handler.removeFilter(note)

    blocked: Any = next(record.msg for record in caplog.records if "blocks the event loop" in str(record.msg))
    assert "the_handler_that_blocks" in blocked["at"]
