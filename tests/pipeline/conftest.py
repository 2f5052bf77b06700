"""A test that fails leaves no pipeline running: its tasks wait for a clock that nobody moves any more."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator

import pytest

from tests.pipeline.support import end_all


@pytest.fixture
async def pipelines_that_end() -> AsyncIterator[None]:
    yield
    await end_all()


@pytest.fixture(autouse=True)
def _no_pipeline_left(request: pytest.FixtureRequest) -> None:
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("pipelines_that_end")
