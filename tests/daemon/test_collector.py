"""The garbage collector of a daemon: how often it looks at all objects."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from broadway_py.daemon.process.collector import importing, quieten_collector


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    yield
    gc.set_threshold(*thresholds)
    gc.callbacks[:] = callbacks


class Circle:
    """Refers to itself, as a failed message does."""

    def __init__(self) -> None:
        self.me = self


def leave(count: int) -> None:
    """Leaves *count* circles to the collector, which must not run by itself meanwhile."""
    gc.disable()
    try:
        for _ in range(count):
            Circle()
    finally:
        gc.enable()


def test_objects_that_exist_are_left_out() -> None:
    frozen = gc.get_freeze_count()
    kept = [Circle() for _ in range(1_000)]
    quieten_collector()
    assert gc.get_freeze_count() >= frozen + len(kept)
    assert gc.get_threshold() == (50_000, 3, 100)


def test_all_objects_are_looked_at_more_often_while_much_is_left_to_the_collector() -> None:
    quieten_collector()
    leave(10)
    gc.collect(1)
    assert gc.get_threshold() == (50_000, 3, 100)
    leave(1_000)
    gc.collect(1)
    assert gc.get_threshold() == (50_000, 3, 20)
    gc.collect(1)
    assert gc.get_threshold() == (50_000, 3, 100)


def test_other_passes_change_nothing() -> None:
    quieten_collector()
    for generation in (0, 2):
        leave(1_000)
        gc.collect(generation)
        assert gc.get_threshold() == (50_000, 3, 100)


def test_a_second_call_adds_nothing() -> None:
    quieten_collector()
    callbacks = list(gc.callbacks)
    quieten_collector()
    assert gc.callbacks == callbacks


def test_modules_are_left_out_while_they_are_imported_and_afterwards() -> None:
    frozen = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
        kept = [Circle() for _ in range(1_000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(kept)


def test_the_collector_runs_again_after_an_import_that_failed() -> None:
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()
