"""The class of an aggregator: what is refused when it is created, its settings, the state, and a window's result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Aggregator, DefinitionError, OptionsError, State, Window, WindowResult
from broadway_py._core.window.spec import UNSET
from broadway_py.aggregator import METHODS, WINDOW_SETTINGS, AggregatorOptions, AggregatorSettings

HERE = __name__


def refused(make: Callable[[], Any]) -> str:
    with pytest.raises((OptionsError, DefinitionError)) as caught:
        make()
    return str(caught.value)


def plain(self: Any, *_: Any) -> Any:
    """Stands for a method."""


async def waiting(self: Any, *_: Any) -> Any:
    """Stands for a method that is ``async def``."""


def defining(**attributes: Any) -> str:
    """The sentence with which a class that has *attributes* is refused."""
    with pytest.raises(DefinitionError) as caught:
        type("Own", (Aggregator,), {"__module__": HERE, "__qualname__": "Own", **attributes})
    return str(caught.value)


# --- the class


@pytest.mark.parametrize(
    ("name", "meant"),
    [("inital", "initial"), ("adds", "add"), ("merg", "merge"), ("emits", "emit"), ("identify", "identity")],
)
def test_a_misspelt_method_is_refused_with_the_probable_one(name: str, meant: str) -> None:
    assert defining(**{name: plain}) == (
        f"{HERE}.Own defines {name!r}, which is not a method of an aggregator; did you mean {meant!r}?"
    )


def test_a_misspelt_option_is_refused_with_the_probable_one() -> None:
    assert defining(max_pendings=5) == (
        f"{HERE}.Own defines 'max_pendings', which is not an option of an aggregator; did you mean 'max_pending'?"
    )


def test_a_helper_with_a_similar_name_is_taken_beside_the_method_itself() -> None:
    type("Own", (Aggregator,), {"key": plain, "keys": plain, "_inital": plain})


@pytest.mark.parametrize("name", ["key", "initial", "add", "merge", "identity", "upgrade"])
def test_what_runs_between_two_messages_may_not_wait(name: str) -> None:
    assert defining(**{name: waiting}) == (
        f"{HERE}.Own.{name}: expected a plain function, got async def: it runs between two messages, where nothing "
        f"may wait; write `def {name}`, and do what must wait in handle_message"
    )


@pytest.mark.parametrize("name", ["emit", "late", "setup", "teardown"])
def test_what_may_wait_is_async(name: str) -> None:
    assert defining(**{name: plain}) == (
        f"{HERE}.Own.{name}: expected async def, got a plain function, which would hold up all messages; write "
        f"`async def {name}`"
    )


def test_every_method_is_either_plain_or_async_and_known() -> None:
    assert set(METHODS) == {
        *("key", "initial", "add", "merge", "identity", "upgrade"),
        *("emit", "late", "setup", "teardown"),
    }
    public = {name for name in vars(Aggregator) if not name.startswith("_") and callable(getattr(Aggregator, name))}
    assert public == set(METHODS)


def test_a_method_that_cannot_be_called_is_refused() -> None:
    def add(self: Any, acc: int) -> int:
        return acc

    assert defining(add=add) == (
        f"{HERE}.Own.add(self: 'Any', acc: 'int') -> 'int' cannot be called; expected add(self, acc, message)"
    )
    assert defining(key="country") == f"{HERE}.Own.key must be a method, got str"


def test_static_methods_and_class_methods_are_methods() -> None:
    class Own(Aggregator[str, Any, int]):
        @staticmethod
        def key(message: Any) -> str:
            return str(message)

        @classmethod
        def add(cls, acc: int, message: Any) -> int:
            return acc + int(message)

        initial = staticmethod(int)

    assert (Own().key(3), Own().add(1, 3), Own().initial()) == ("3", 4, 0)


def test_the_types_of_a_class_do_not_matter_before_a_pipeline_takes_it() -> None:
    type("Own", (Aggregator,), {})


# --- settings


def test_the_defaults_of_the_class_are_those_of_the_settings() -> None:
    own = {name: getattr(Aggregator, name) for name in AggregatorOptions.model_fields}
    assert own == AggregatorOptions().model_dump()
    assert own == {
        "emit_batch": 100,
        "emit_timeout": 60.0,
        "emit_to": None,
        "max_demand": 1000,
        "max_open": 1_000_000,
        "max_pending": 100_000,
        "require_identity": False,
    }
    assert {getattr(Aggregator, name) for name in WINDOW_SETTINGS} == {UNSET}


def test_the_settings_of_the_window_are_those_of_a_window() -> None:
    assert {"delay", "lateness", "max_ahead", "idle_timeout", "hold_timeout"} == WINDOW_SETTINGS
    assert all(hasattr(Window, name) for name in WINDOW_SETTINGS)


class Own(Aggregator[str, Any, int]):
    def key(self, message: Any) -> str:
        raise NotImplementedError

    def initial(self) -> int:
        raise NotImplementedError

    def add(self, acc: int, message: Any) -> int:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"emit_batch": 0}, "emit_batch: expected greater than or equal to 1, got 0"),
        (
            {"emit_timeout": "soon"},
            "emit_timeout: expected a duration in seconds, or text such as '500ms', '2s', '1m', got 'soon'",
        ),
        ({"max_demand": 0}, "max_demand: expected greater than or equal to 1, got 0"),
        (
            {"emit_to": {"kind": "rabbitmq", "url": "amqp://shop:secret@127.0.0.1/"}},
            "emit_to: expected a sink, such as QueueSink('var/out.db', 'results'), got a dict",
        ),
        ({"max_open": 1.5}, "max_open: expected a valid integer, got 1.5"),
        ({"max_pending": True}, "max_pending: expected a valid integer, got True"),
        ({"require_identity": "yes"}, "require_identity: expected true or false, got 'yes'"),
        ({"delay": -1}, "delay: expected greater than or equal to 0, got -1"),
        (
            {"lateness": "-1s"},
            "lateness: expected a duration in seconds, or text such as '500ms', '2s', '1m', got '-1s'",
        ),
        ({"max_ahead": -0.5}, "max_ahead: expected greater than or equal to 0, got -0.5"),
        ({"idle_timeout": 0}, "idle_timeout: expected greater than 0, got 0"),
        ({"hold_timeout": -1}, "hold_timeout: expected greater than or equal to 0, got -1"),
        (
            {"max_deman": 5},
            (
                "max_deman: unknown setting; known here: delay, emit_batch, emit_timeout, emit_to, hold_timeout, "
                "idle_timeout, lateness, max_ahead, max_demand, max_open, max_pending, require_identity; did you mean "
                "'max_demand'?"
            ),
        ),
    ],
)
def test_a_wrong_argument_is_refused(options: dict[str, Any], sentence: str) -> None:
    assert refused(lambda: Own(**options)) == sentence


def test_durations_are_seconds() -> None:
    settings = AggregatorSettings(delay="1m", lateness=timedelta(seconds=2), max_ahead=None, idle_timeout=3)
    assert (settings.delay, settings.lateness, settings.max_ahead, settings.idle_timeout) == (60.0, 2.0, None, 3.0)


# --- the state


def test_a_state_has_a_path_and_defaults() -> None:
    state = State("var/shop.db")
    assert (state.path, state.checkpoint_interval, state.dedup, state.is_memory) == ("var/shop.db", 0.1, 600.0, False)
    assert State(Path("var/shop.db")) == State(path="var/shop.db") == state
    assert State("memory").is_memory


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: State(), "path: required, but missing"),  # noqa: PLW0108  # mypy sees no types in a bare class
        (lambda: State(3), "path: expected the path of a file, or 'memory', got 3; put quotes around it"),  # type: ignore[arg-type]  # a mistake
        (lambda: State(""), "path: expected the path of a file, or 'memory', got ''"),
        (lambda: State("a", checkpoint_interval=0), "checkpoint_interval: expected greater than 0, got 0"),
        (lambda: State("a", dedup=-1), "dedup: expected greater than or equal to 0, got -1"),
        (
            lambda: State("a", dedupe=1),
            "dedupe: unknown setting; known here: checkpoint_interval, dedup, path; did you mean 'dedup'?",
        ),
    ],
)
def test_a_wrong_state_is_refused(make: Callable[[], State], sentence: str) -> None:
    assert refused(make) == sentence


# --- the result


def test_a_result_is_frozen_and_says_which_window_it_is_of() -> None:
    result = WindowResult[str, int]("revenue", "de", 0.0, 60.0, 12, 3, "id", 1, "watermark", is_last=True)
    assert (result.replaces, result.partition) == ((), None)
    with pytest.raises(FrozenInstanceError):
        result.value = 13  # type: ignore[misc]
