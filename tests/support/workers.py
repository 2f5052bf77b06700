"""The suite on several cores (pytest-xdist): who runs which file, and stacks from a worker that hangs; a pytest plugin.

A worker takes whole files, so that what a file shares is made once. Files that need a broker or processes are the long
ones, and mostly wait. The others mostly compute. So one worker takes those while the rest wait. Some of the short files
are left for the end, which they even out.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

#: Seconds before the end of a test's time at which a worker shows its stacks: what ends it says nothing there.
_SOONER: Final = 0.5
#: What a file with tests that need a broker or processes says.
_LONG: Final = ("mark.integration", "mark.faults")
#: The part of the short files' tests that is left for the end, when the long files are under way or done.
_LEFT: Final = 0.4


def pytest_configure(config: pytest.Config) -> None:
    if is_worker(config):
        config.pluginmanager.register(_Worker(), "the-worker-of-a-run")


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs a share of the tests for another one."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """By file, the long ones beside the short ones, unless ``--dist`` says otherwise."""
    if config.getvalue("dist") != "load":
        return None
    config.option.loadscopereorder = False
    return _LongBesideShort(config, log)


class _LongBesideShort(LoadFileScheduling):  # type: ignore[misc]  # xdist ships no types
    """All workers but the last take the long files first; the last one begins with the short ones."""

    _short: dict[str, int] | None = None

    def _assign_work_unit(self, node: WorkerController) -> None:
        self.workqueue.move_to_end(self._next_for(node), last=False)
        super()._assign_work_unit(node)

    def _next_for(self, node: WorkerController) -> str:
        if self._short is None:
            # The marks themselves are known to the workers alone.
            self._short = {
                file: len(tests) for file, tests in self.workqueue.items() if not _is_long(self.config.rootpath / file)
            }
        left = sum(self._short[file] for file in self.workqueue if file in self._short)
        wants_short = node is self.nodes[-1] and left > _LEFT * sum(self._short.values())
        files = list[str](self.workqueue)
        return next((file for file in files if (file in self._short) is wants_short), files[0])


def _is_long(file: Path) -> bool:
    text = file.read_text()
    return any(mark in text for mark in _LONG)


class _Worker:
    """What a process that runs a share of the tests does besides."""

    def __init__(self) -> None:
        # Before pytest puts a file in its place. Standard output is nobody's in a worker.
        self._terminal = os.dup(2)

    @pytest.hookimpl(wrapper=True, optionalhook=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> Generator[None, object, object]:
        if settings.timeout:
            faulthandler.dump_traceback_later(max(settings.timeout - _SOONER, 0.1), file=self._terminal)
        return (yield)

    @pytest.hookimpl(wrapper=True, optionalhook=True)
    def pytest_timeout_cancel_timer(self, item: pytest.Item) -> Generator[None, object, object]:
        faulthandler.cancel_dump_traceback_later()
        return (yield)

    def pytest_unconfigure(self) -> None:
        os.close(self._terminal)
