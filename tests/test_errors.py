"""Errors say what was expected, what came, where, and what to do; without data of users."""

from __future__ import annotations

import pickle

import pytest

from broadway_py.error_text import shown_text
from broadway_py.errors import (
    BatchFailed,
    BroadwayError,
    CalledInsideCallback,
    DefinitionError,
    FlowFailed,
    MessageFailed,
    OptionsError,
    ProducerError,
    SettleError,
    SourceRefused,
    did_you_mean,
)
from broadway_py.message import Failed, Message


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([], "expected 1, got 0"),
        (["concurrency"], "concurrency: expected 1, got 0"),
        (["processors", "concurrency"], "processors.concurrency: expected 1, got 0"),
    ],
)
def test_a_wrong_setting_is_named_by_its_path(path: list[str], text: str) -> None:
    error = OptionsError(path, "expected 1, got 0")

    assert str(error) == text
    assert (error.path, error.problem) == (tuple(path), "expected 1, got 0")


def test_the_path_grows_as_the_error_comes_further_out() -> None:
    inner = OptionsError(["batch_size"], "expected 1, got 0")

    outer = inner.under("pipelines", "orders").under("cluster")

    assert str(outer) == "cluster.pipelines.orders.batch_size: expected 1, got 0"
    assert str(inner.under()) == str(inner) == "batch_size: expected 1, got 0"
    assert str(OptionsError([], "empty").under("http")) == "http: empty"


@pytest.mark.parametrize(
    ("error", "builtin"),
    [(OptionsError([], ""), ValueError), (DefinitionError(), TypeError), (SourceRefused(), ProducerError)],
)
def test_errors_are_also_what_python_users_expect(error: BroadwayError, builtin: type[Exception]) -> None:
    assert isinstance(error, builtin)


def test_a_settle_error_keeps_the_messages_whose_outcome_nobody_knows() -> None:
    messages = (Message(1), Message(2))

    error = SettleError("the channel closed", unsettled=messages)

    assert (str(error), error.unsettled) == ("the channel closed", list(messages))


def failed(cause: str) -> Message[str]:
    message = Message("geheim")
    message.status = Failed(cause, "geheim", ValueError("geheim"))  # type: ignore[arg-type]  # any cause will do
    return message


def test_a_failed_submission_carries_the_message_the_reason_and_the_cause() -> None:
    message = failed("raised")

    error = MessageFailed(message)

    assert str(error) == "the submitted message failed (raised): geheim"
    assert error.message is message
    assert (error.cause, error.reason) == ("raised", "geheim")
    assert message.status is not None
    assert error.__cause__ is message.status.exception


def test_a_failed_batch_counts_and_says_why_the_first_one_failed() -> None:
    messages = (failed("timeout"), failed("raised"))

    error = BatchFailed(messages, 5)

    assert str(error) == "2 of 5 submitted messages failed; the first one (timeout): geheim"
    assert error.failed == list(messages)
    assert isinstance(error.__cause__, ValueError)


@pytest.mark.parametrize("error", [MessageFailed(failed("raised")), BatchFailed([failed("raised")], 1)])
def test_the_log_does_not_quote_what_a_failed_submission_says(error: Exception) -> None:
    assert shown_text(error) is None


def test_a_call_from_inside_a_callback_is_told_what_to_use_instead() -> None:
    error = CalledInsideCallback("stop")

    assert error.call == "stop"
    assert str(error) == (
        "stop() was awaited inside a callback of the same pipeline, which would wait for itself; "
        "use pipeline.request_stop() to end the pipeline, or hand the work to a task of your own"
    )


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (None, "map 2: parse failed with ValueError in stage 3"),
        ("words.txt, line 3", "map 2: parse failed with ValueError in stage 3 at words.txt, line 3"),
    ],
)
def test_a_failed_flow_names_operator_and_place_and_not_the_element(place: str | None, text: str) -> None:
    cause = ValueError("secret")

    error = FlowFailed("map 2: parse", cause, stage=3, place=place, element="secret")

    assert str(error) == text
    assert (error.operator, error.stage, error.place, error.element) == ("map 2: parse", 3, place, "secret")
    assert error.__cause__ is cause


def test_a_failed_flow_is_pickled_with_its_cause() -> None:
    error = FlowFailed("map 2: parse", ValueError("it is 3"), stage=3, place="words.txt, line 3", element=7)
    error.args = ("another text",)

    back = pickle.loads(pickle.dumps(error))  # noqa: S301  # it was made here

    assert str(back) == "another text"
    assert (back.operator, back.stage, back.place, back.element) == ("map 2: parse", 3, "words.txt, line 3", 7)
    assert repr(back.__cause__) == "ValueError('it is 3')"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("concurency", "; did you mean 'concurrency'?"),
        ("max-demand", "; did you mean 'max_demand'?"),
        ("xyzzy", ""),
        ("", ""),
    ],
)
def test_a_close_name_is_suggested(name: str, hint: str) -> None:
    assert did_you_mean(name, ["concurrency", "max_demand"]) == hint


def test_nothing_is_suggested_out_of_nothing() -> None:
    assert did_you_mean("concurrency", []) == ""
