"""The plug-in of pytest: the fixture ``broadway``, and the story of each harness beside the failure of its test."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from broadway_py.testing.harnesses import Harnesses

__all__ = ["broadway"]

_MADE: pytest.StashKey[Harnesses] = pytest.StashKey()


@pytest.fixture
def broadway(request: pytest.FixtureRequest) -> Iterator[Harnesses]:
    """Makes harnesses as ``broadway_py.testing.harness`` does: ``async with`` what it returns for a pipeline.

    If the test fails, its report tells what became of each message. It is a plain fixture, so it works with any plug-in
    that runs ``async def`` tests.
    """
    # Here, because pytest loads this module in every run of every project.
    from broadway_py.testing.harnesses import Harnesses  # noqa: PLC0415  # the reason is above

    made = request.node.stash[_MADE] = Harnesses()
    yield made
    made.refuse_open()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the story of each harness to the report of a test that failed."""
    report = yield
    made = item.stash.get(_MADE, None)
    if made is not None and report.when == "call" and report.failed:
        report.sections += [(f"broadway: {name}", story) for name, story in made.stories()]
    return report
