"""The suite on several cores (pytest-xdist): who runs which file, and stacks from a worker that hangs; a pytest plugin.

A worker takes whole files, so that what a file shares is made once. Files that need a broker or processes come first:
they are the long ones, and the short ones even out at the end.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator
from typing import Any, Final

import pytest
from xdist.scheduler import LoadFileScheduling

#: Seconds before the end of a test's time at which a worker shows its stacks: what ends it says nothing there.
_SOONER: Final = 0.5


def pytest_configure(config: pytest.Config) -> None:
    if is_worker(config):
        config.pluginmanager.register(_Worker(), "the-worker-of-a-run")


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs a share of the tests for another one."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """By file, in the order in which they were collected, unless ``--dist`` says otherwise."""
    if config.getvalue("dist") != "load":
        return None
    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


class _Worker:
    """What a process that runs a share of the tests does besides."""

    def __init__(self) -> None:
        # Before pytest puts a file in its place. Standard output is nobody's in a worker.
        self._terminal = os.dup(2)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        long = {item.path for item in items if _is_long(item)}
        items.sort(key=lambda item: item.path not in long)

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


def _is_long(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) is not None for name in ("integration", "faults"))
