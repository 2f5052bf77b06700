"""The event bus: who is attached is told, who raises is taken off, and a wrong name is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from broadway_py import telemetry
from broadway_py.events import EVENTS

START, STOP = "broadway.processor.start", "broadway.processor.stop"

Told = list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]


@pytest.fixture(autouse=True)
def nobody_attached_at_the_end() -> Iterator[None]:
    yield
    for name in ("one", "other"):
        telemetry.detach(name)
    assert not telemetry.active()


def into(told: Told) -> telemetry.Handler:
    return lambda event, measurements, metadata: told.append((event, measurements, metadata))


def test_a_handler_is_told_of_its_events_and_of_no_others() -> None:
    told: Told = []
    telemetry.attach("one", [START], into(told))

    telemetry.execute(START, {"system_time": 1.0}, {"pipeline": "orders"})
    telemetry.execute(STOP, {}, {})

    assert told == [(START, {"system_time": 1.0}, {"pipeline": "orders"})]


def test_one_event_can_be_given_by_its_name_alone() -> None:
    told: Told = []
    telemetry.attach("one", START, into(told))

    telemetry.execute(START, {}, {})

    assert told == [(START, {}, {})]


def test_every_handler_of_an_event_is_told_in_the_order_they_came() -> None:
    told: list[str] = []
    telemetry.attach("one", START, lambda *_: told.append("one"))
    telemetry.attach("other", [START, STOP], lambda *_: told.append("other"))

    telemetry.execute(START, {}, {})
    telemetry.execute(STOP, {}, {})

    assert told == ["one", "other", "other"]


def test_one_can_ask_whether_anybody_listens() -> None:
    assert (telemetry.active(), telemetry.listening(START)) == (False, False)

    telemetry.attach("one", START, into([]))

    assert (telemetry.active(), telemetry.listening(START), telemetry.listening(STOP)) == (True, True, False)


def test_detaching_takes_a_handler_off_all_its_events_and_leaves_the_others() -> None:
    told: list[str] = []
    telemetry.attach("one", [START, STOP], lambda *_: told.append("one"))
    telemetry.attach("other", START, lambda *_: told.append("other"))

    telemetry.detach("one")
    telemetry.detach("nobody")
    telemetry.execute(START, {}, {})
    telemetry.execute(STOP, {}, {})

    assert told == ["other"]
    assert not telemetry.listening(STOP)


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (
            "broadway.procesor.start",
            "telemetry.attach: unknown event 'broadway.procesor.start'; did you mean 'broadway.processor.start'?",
        ),
        ("clicks", "telemetry.attach: unknown event 'clicks'"),
    ],
)
def test_an_unknown_event_is_refused_and_nothing_is_attached(event: str, sentence: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the whole sentence is compared below
        telemetry.attach("one", [START, event], into([]))

    assert str(refused.value) == sentence
    assert not telemetry.active()


def test_a_name_that_is_taken_is_refused_and_nothing_is_attached() -> None:
    telemetry.attach("one", STOP, into([]))

    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the whole sentence is compared below
        telemetry.attach("one", [START, STOP], into([]))

    assert str(refused.value) == (
        "telemetry.attach: a handler named 'one' is attached to 'broadway.processor.stop' already"
    )
    assert not telemetry.listening(START)


def test_one_name_may_be_attached_to_further_events() -> None:
    told: Told = []
    telemetry.attach("one", START, into(told))
    telemetry.attach("one", STOP, into(told))

    telemetry.execute(STOP, {}, {})

    assert [event for event, _, _ in told] == [STOP]


def test_a_handler_that_raises_is_detached_and_logged_and_the_others_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []

    def broken(*_: object) -> None:
        raise RuntimeError("the handler's own trouble")

    telemetry.attach("one", [START, STOP], broken)
    telemetry.attach("other", START, lambda *_: told.append("other"))

    with caplog.at_level(logging.ERROR, "broadway_py.telemetry"):
        telemetry.execute(START, {"secret": "geheim"}, {"message": "geheim"})
        telemetry.execute(START, {}, {})

    assert told == ["other", "other"]
    assert not telemetry.listening(STOP)
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("ERROR", "broadway_py.telemetry")
    assert isinstance(record.msg, dict)
    assert record.msg["event"] == "a telemetry handler raised and was detached"
    assert (record.msg["handler"], record.msg["telemetry_event"]) == ("one", START)
    assert "geheim" not in str(record.msg)


@pytest.mark.parametrize("change", [lambda: telemetry.detach("other"), lambda: telemetry.detach("one")])
def test_a_handler_may_detach_while_it_is_told(change: Callable[[], None]) -> None:
    told: list[str] = []

    def first(*_: object) -> None:
        told.append("one")
        change()

    telemetry.attach("one", START, first)
    telemetry.attach("other", START, lambda *_: told.append("other"))

    telemetry.execute(START, {}, {})

    assert told == ["one", "other"]


def test_every_event_has_the_form_of_the_others() -> None:
    for event in EVENTS:
        assert event.startswith("broadway.")
        assert event == event.lower()
        stem, _, last = event.rpartition(".")
        if last in {"stop", "exception"}:
            # A stage of a flow begins with its flow.
            assert f"{stem.replace('flow.stage', 'flow')}.start" in EVENTS
