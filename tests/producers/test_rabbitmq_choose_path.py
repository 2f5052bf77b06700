"""Which way deliveries take, and what is said when it is not the fast one."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest

from broadway_py.errors import ProducerError
from broadway_py.producers.rabbitmq.connection.transport import CuttingReader
from broadway_py.producers.rabbitmq.deliveries import choose_path
from broadway_py.producers.rabbitmq.wire.delivery_parser import Ended
from tests.pipeline.support import events_logged, logged


@pytest.fixture(autouse=True)
def _nothing_known_yet() -> Iterator[None]:
    choose_path.problem.cache_clear()
    choose_path._warn.cache_clear()
    yield
    choose_path.problem.cache_clear()
    choose_path._warn.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    """Have this version of aiormq, so to speak."""
    monkeypatch.setattr(
        f"{choose_path.__name__}.version", lambda package: found if package == "aiormq" else version(package)
    )


@pytest.fixture
def old_library(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "7.1.0")


async def test_auto_is_fast_where_it_works(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_path.problem() is None
    assert choose_path.is_fast("auto")
    assert choose_path.is_fast("fast")
    assert events_logged(caplog) == []


async def test_plain_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_path, "problem", lambda: pytest.fail("nobody wants to know"))
    assert not choose_path.is_fast("plain")


@pytest.mark.usefixtures("old_library")
async def test_auto_falls_back_with_one_warning_for_all_connects(caplog: pytest.LogCaptureFixture) -> None:
    assert [choose_path.is_fast("auto") for _ in range(3)] == [False] * 3
    (warning,) = logged(caplog)
    assert (warning["event"], warning["reason"]) == (
        "deliveries take the plain path, which is slower; set delivery_path: plain to avoid this warning",
        "it was tested with aiormq>=7.2.4,<8, and 7.1.0 is installed",
    )


@pytest.mark.usefixtures("old_library")
async def test_fast_is_refused_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ProducerError) as refused:
        choose_path.is_fast("fast")
    assert str(refused.value) == (
        "delivery_path is 'fast', but it was tested with aiormq>=7.2.4,<8, and 7.1.0 is installed; "
        "set delivery_path: auto or plain"
    )
    assert events_logged(caplog) == []


@pytest.mark.parametrize(
    ("found", "fits"),
    [("7.2.4", True), ("7.10", True), ("7.3.0rc1", True), ("7.2.3", False), ("8.0.0", False), ("unknown", False)],
)
async def test_versions_are_compared_number_by_number(
    monkeypatch: pytest.MonkeyPatch, *, found: str, fits: bool
) -> None:
    install(monkeypatch, found)
    assert (choose_path.problem() is None) == fits


async def test_an_asyncio_that_no_longer_feeds_the_reader_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CuttingReader, "feed_data", lambda *_: None)
    assert choose_path.problem() == "its self-test did not return the recorded deliveries"


async def test_a_rehearsal_that_raises_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(CuttingReader, "sink")
    assert choose_path.problem() == "its self-test raised AttributeError"


async def test_bytes_that_the_library_would_miss_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy(CuttingReader):
        """Keeps the last frame to itself."""

        def feed_data(self, data: Any) -> None:
            super().feed_data(data.removesuffix(choose_path._CLOSE))
            if data.endswith(choose_path._CLOSE):
                self._receivers.popitem()[1].ended(Ended("channel"))

    monkeypatch.setattr(choose_path, "CuttingReader", Greedy)
    assert choose_path.problem() == "its self-test did not pass on the frames of the client library"
