"""Flows in worker processes: what is said of a worker that dies, and of what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broadway_py import Flow
from broadway_py.errors import FlowFailed, OptionsError
from broadway_py.flow.description import checks
from tests.flow.processes import works
from tests.flow.support import leaves_nothing


def test_an_error_of_a_function_says_where_in_the_worker_process_it_was() -> None:
    with pytest.raises(FlowFailed) as raised:
        Flow.from_iterable(range(40), max_demand=4).map(works.refuse).using("processes", workers=2).run()

    cause = raised.value.__cause__
    assert cause is not None
    place, traceback = cause.__notes__
    assert place.startswith("raised in a worker process, at ")
    assert traceback.startswith("In worker process ")
    assert traceback.endswith('raise Refused(number, "it is 17")\ntests.flow.processes.works.Refused: it is 17')


@pytest.mark.parametrize(
    ("function", "how"),
    [(works.die, "killed by SIGKILL; perhaps memory ran out"), (works.exit_at_once, "exit code 3")],
)
def test_a_worker_that_dies_ends_the_flow(function: Callable[[int], Any], how: str) -> None:
    flow = Flow.from_iterable([1], stages=1).map(function)

    with leaves_nothing():
        with pytest.raises(FlowFailed) as raised:
            flow.using("processes", workers=1).run()
        text, operator_ = str(raised.value), raised.value.operator
        del raised

    assert (text, operator_) == (f"worker process 0 has died: {how}", "worker process 0")


def test_the_library_that_pickles_functions_is_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _: None)

    with pytest.raises(OptionsError) as raised:
        Flow.from_iterable([1]).using("processes")

    assert str(raised.value) == (
        "using.runner: 'processes' needs cloudpickle, which is not installed: pip install 'broadway-py[flow]'"
    )
