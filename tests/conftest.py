"""Holds for every test: the conformance record, and that CI skips no integration test."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import Phase, settings

from broadway_py.daemon.process.collector import importing
from broadway_py.log import _Carried, line_limit, show_error_texts

# No deadline per example: on a busy machine it says nothing about the code. `--hypothesis-profile` chooses another.
settings.register_profile("broadway", deadline=None, max_examples=100, stateful_step_count=30)
# Sabotage and mutation testing need a failure, and not the smallest example of it, which takes up to a minute to find.
settings.register_profile("any_failure", settings.get_profile("broadway"), phases=(Phase.explicit, Phase.generate))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "broadway"))

pytest_plugins = [
    "pytester",
    "tests.support.broker_fixtures",
    "tests.support.sqs_fixtures",
    "tests.support.conformance",
    "tests.support.workers",
]


#: The project of a user, which runs its tests by itself: see test_user_repository.py.
collect_ignore = ["user-repository"]


def pytest_configure() -> None:
    """Take Ctrl-C: a shell has what it starts in the background ignore it, and so would the programs of the tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave modules and collected tests out of what the garbage collector walks over: they stay, and are very many."""
    with importing():
        return (yield)


@pytest.fixture(autouse=True)
def _logs_of_this_test_alone() -> Iterator[None]:
    """What other tests of the same minute have logged takes no line away from this one; nor are its texts shown.

    Nor do worker processes of other tests direct their log as this one does.
    """
    line_limit.forget()
    yield
    _Carried.setup = None
    _Carried.fields = None
    show_error_texts(False, how="broadway_py.log.show_error_texts() shows it")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI=true a skipped integration test is a failure: a missing broker must not look like a green run."""
    report = yield
    if (
        report.skipped
        and not hasattr(report, "wasxfail")
        and os.environ.get("CI") == "true"
        and item.get_closest_marker("integration") is not None
    ):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"an integration test may not be skipped under CI=true: {reason}"
    return report
