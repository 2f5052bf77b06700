"""Settings: every wrong value has a sentence with its path, and no secret is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py.errors import OptionsError
from broadway_py.machine import usable_processors
from broadway_py.options import (
    INHERIT,
    Batcher,
    Duration,
    Options,
    PlainOptions,
    PositiveDuration,
    Processors,
    RateLimit,
    load,
)
from tests.support.conformance import conforms


def sentence(model: type[Options], settings: Mapping[str, Any]) -> str:
    with pytest.raises(OptionsError) as refused:
        model(**settings)
    return str(refused.value)


def count(_message: Any, total: int) -> tuple[str, int]:
    return ("cont", total + 1)


# --- defaults -------------------------------------------------------------------------------------------------------


@conforms("B-010")
def test_there_are_two_processors_for_each_core_unless_said_otherwise() -> None:
    assert Processors().concurrency == usable_processors().times(2)


def test_the_other_defaults_of_processors() -> None:
    processors = Processors()

    assert (processors.max_demand, processors.min_demand, processors.refill_at) == (10, None, 5)
    assert processors.partition_by is INHERIT


def test_the_defaults_of_batchers() -> None:
    batcher = Batcher()

    assert (batcher.batch_size, batcher.batch_timeout, batcher.max_batch_bytes) == (100, 1.0, None)
    assert (batcher.concurrency, batcher.max_demand, batcher.demand) == (1, None, 100)
    assert batcher.partition_by is INHERIT


@conforms("B-118")
def test_a_batcher_asks_for_a_full_batch_unless_said_otherwise() -> None:
    assert Batcher(batch_size=123).demand == 123
    assert Batcher(batch_size=123, max_demand=7).demand == 7
    assert Batcher(batch_size=(0, count), max_demand=7).demand == 7


def test_the_defaults_of_the_rest() -> None:
    shutdown = PlainOptions()

    assert RateLimit(allowed_messages=3, interval=1).scope == "pipeline"
    assert (shutdown.shutdown_timeout, shutdown.max_restarts, shutdown.max_seconds) == (25.0, 3, 5.0)
    assert not shutdown.fail_fast


@pytest.mark.parametrize(
    ("most", "least", "refill_at"), [(10, None, 5), (1, None, 0), (5, None, 2), (6, 3, 3), (6, 0, 0)]
)
def test_a_processor_asks_again_at_half_of_its_most_unless_said_otherwise(
    most: int, least: int | None, refill_at: int
) -> None:
    assert Processors(max_demand=most, min_demand=least).refill_at == refill_at


# --- durations ------------------------------------------------------------------------------------------------------


class Waiting(Options):
    seconds: Duration = 0.0


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (2, 2.0),
        (0.5, 0.5),
        (0, 0.0),
        ("2s", 2.0),
        ("500ms", 0.5),
        ("1m", 60.0),
        ("1.5h", 5400.0),
        ("3", 3.0),
        (" 2 s ", 2.0),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_text_with_a_unit(written: Any, seconds: float) -> None:
    duration = Waiting(seconds=written).seconds

    assert duration == pytest.approx(seconds)
    assert isinstance(duration, float)


@pytest.mark.parametrize("written", [True, None, "soon", "-1s", "", "s", [1], {}])
def test_anything_else_is_no_duration(written: Any) -> None:
    assert sentence(Waiting, {"seconds": written}) == (
        f"seconds: expected a duration in seconds, or text such as '500ms', '2s', '1m', got {written!r}"
    )


@pytest.mark.parametrize("written", ["1d", "1m30s", "2 days", "1e3", "1,5s"])
def test_a_number_with_another_unit_is_told_which_units_there_are(written: str) -> None:
    assert sentence(Waiting, {"seconds": written}) == (
        "seconds: expected a duration in seconds, or text such as '500ms', '2s', '1m': one number with the unit "
        f"ms, s, m or h, got {written!r}"
    )


@pytest.mark.parametrize("written", [float("inf"), float("-inf"), float("nan")])
def test_a_duration_ends(written: float) -> None:
    assert sentence(Waiting, {"seconds": written}) == f"seconds: expected a finite duration in seconds, got {written}"


# --- wrong values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "name", "least"),
    [
        (Processors, "concurrency", 1),
        (Processors, "max_demand", 1),
        (Processors, "min_demand", 0),
        (Batcher, "max_batch_bytes", 1),
        (Batcher, "concurrency", 1),
        (Batcher, "max_demand", 1),
        (RateLimit, "allowed_messages", 1),
        (PlainOptions, "max_restarts", 0),
    ],
)
def test_a_whole_number_is_not_too_small_and_not_text(model: type[Options], name: str, least: int) -> None:
    rest = {"interval": 1} if model is RateLimit else {}

    assert sentence(model, {name: least - 1, **rest}) == (
        f"{name}: expected greater than or equal to {least}, got {least - 1}"
    )
    for wrong in ("3", True, 1.0):
        assert sentence(model, {name: wrong, **rest}) == f"{name}: expected a valid integer, got {wrong!r}"
    assert getattr(model(**{name: least, **rest}), name) == least


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (Batcher, "batch_timeout"),
        (RateLimit, "interval"),
        (PlainOptions, "shutdown_timeout"),
        (PlainOptions, "max_seconds"),
    ],
)
def test_a_duration_that_something_waits_for_is_longer_than_nothing(model: type[Options], name: str) -> None:
    rest = {"allowed_messages": 1} if model is RateLimit else {}

    for wrong in (0, "0s", -1):
        assert sentence(model, {name: wrong, **rest}) == f"{name}: expected greater than 0, got {wrong!r}"


@pytest.mark.parametrize(("most", "least"), [(10, 10), (10, 11), (1, 1)])
def test_a_processor_must_be_able_to_ask_again(most: int, least: int) -> None:
    assert sentence(Processors, {"max_demand": most, "min_demand": least}) == (
        f"min_demand: expected less than max_demand ({most}), got {least}: "
        "with it, a processor might never ask for messages again"
    )


@conforms("B-006")
@pytest.mark.parametrize("wrong", [0, -1, True, "10", 1.5, None, (0, 3), (0, len, 1), [0], count])
def test_a_batch_size_is_a_number_or_a_function_with_its_beginning(wrong: Any) -> None:
    assert sentence(Batcher, {"batch_size": wrong, "max_demand": 1}) == (
        "batch_size: expected a positive whole number or (initial, fn), "
        f"with fn(message, acc) -> ('emit' | 'cont', acc), got {wrong!r}"
    )


@conforms("B-007")
def test_a_batch_size_function_needs_a_demand() -> None:
    assert sentence(Batcher, {"batch_size": (0, count)}) == "max_demand: required when batch_size is a function"


def test_a_batch_size_function_may_come_in_a_list_as_files_have_it() -> None:
    assert Batcher(batch_size=[0, count], max_demand=3).batch_size == (0, count)


@pytest.mark.parametrize("model", [Processors, Batcher])
@pytest.mark.parametrize("wrong", [3, "key", ["key"]])
def test_a_partition_by_is_a_function_or_none(model: type[Options], wrong: Any) -> None:
    assert sentence(model, {"partition_by": wrong}) == (
        f"partition_by: expected a function of one message that returns its key, or None, got {wrong!r}"
    )


@pytest.mark.parametrize("model", [Processors, Batcher])
def test_partitioning_may_be_set_left_to_the_pipeline_or_switched_off(model: type[Processors | Batcher]) -> None:
    assert model(partition_by=len).partition_by is len
    assert model(partition_by=None).partition_by is None
    assert model(partition_by=INHERIT).partition_by is INHERIT


def test_a_scope_is_one_of_those_there_are() -> None:
    assert sentence(RateLimit, {"allowed_messages": 1, "interval": 1, "scope": "all"}) == (
        "scope: expected 'pipeline' or 'worker', got 'all'"
    )


@pytest.mark.parametrize("wrong", [1, "yes", None])
def test_a_switch_is_on_or_off(wrong: Any) -> None:
    assert sentence(PlainOptions, {"fail_fast": wrong}) == f"fail_fast: expected true or false, got {wrong!r}"


@pytest.mark.parametrize(
    ("given", "missing"),
    [({}, "allowed_messages"), ({"allowed_messages": 1}, "interval"), ({"interval": 1}, "allowed_messages")],
)
def test_what_is_required_is_asked_for(given: dict[str, Any], missing: str) -> None:
    assert sentence(RateLimit, given) == f"{missing}: required, but missing"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("concurency", "; did you mean 'concurrency'?"), ("max_demands", "; did you mean 'max_demand'?"), ("x", "")],
)
def test_an_unknown_setting_is_refused_with_those_there_are(name: str, hint: str) -> None:
    assert sentence(Processors, {name: 3}) == (
        f"{name}: unknown setting; known here: concurrency, executor, max_demand, min_demand, partition_by, "
        f"timeout{hint}"
    )


def test_an_unknown_setting_is_told_before_a_wrong_one() -> None:
    assert sentence(RateLimit, {"interval": 0, "alowed_messages": 1}) == (
        "alowed_messages: unknown setting; known here: allowed_messages, interval, scope; "
        "did you mean 'allowed_messages'?"
    )


def test_a_long_value_is_cut() -> None:
    shown = sentence(Waiting, {"seconds": "x" * 500})

    assert shown.endswith(", got '" + "x" * 76 + "...")


def test_settings_are_frozen() -> None:
    processors = Processors(concurrency=3)

    with pytest.raises(ValueError, match="Instance is frozen"):
        processors.concurrency = 4  # type: ignore[misc]  # that is what is tested

    assert processors.concurrency == 3


# --- sections of a file ---------------------------------------------------------------------------------------------


class Inner(Options):
    size: PositiveDuration = 1.0


class Outer(Options):
    limit: RateLimit | None = None
    inner: Inner = Inner()
    url: str = ""
    api_token: str = ""
    password: str = ""
    users: int = 0


@conforms("B-004")
def test_an_unknown_setting_of_a_named_batcher_has_its_whole_path_and_those_there_are() -> None:
    class Pipelines(Options):
        batchers: dict[str, Batcher]

    with pytest.raises(OptionsError) as refused:
        load(Pipelines, {"batchers": {"s3": {"batch_sise": 10}}}, ("pipelines", "orders"))

    assert str(refused.value) == (
        "pipelines.orders.batchers.s3.batch_sise: unknown setting; known here: batch_size, batch_timeout, concurrency, "
        "executor, max_batch_bytes, max_demand, partition_by, timeout; did you mean 'batch_size'?"
    )


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"inner": {"size": 0}}, "inner.size: expected greater than 0, got 0"),
        ({"inner": {"sise": 1}}, "inner.sise: unknown setting; known here: size; did you mean 'size'?"),
        ({"limit": {"interval": 1}}, "limit.allowed_messages: required, but missing"),
        ({3: 4}, "3: unknown setting; known here: api_token, inner, limit, password, url, users"),
    ],
)
def test_a_wrong_setting_of_a_section_has_its_whole_path(raw: Mapping[Any, Any], text: str) -> None:
    with pytest.raises(OptionsError) as refused:
        load(Outer, raw, ("pipelines", "orders"))

    assert str(refused.value) == f"pipelines.orders.{text}"


@pytest.mark.parametrize(("raw", "came"), [(None, "NoneType"), ([1], "list"), (3, "int"), ("fast", "str")])
def test_a_section_is_a_section(raw: object, came: str) -> None:
    with pytest.raises(OptionsError) as refused:
        load(Processors, raw, ("pipelines", "orders", "processors"))

    assert str(refused.value) == f"pipelines.orders.processors: expected a section of settings, got {came}"


def test_a_section_is_read_with_its_units() -> None:
    assert load(Outer, {"limit": {"allowed_messages": 5, "interval": "1m"}}).limit == RateLimit(
        allowed_messages=5, interval=60.0
    )


# --- secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("url", "expected text"),
        ("api_token", "expected text"),
        ("password", "expected text"),
        ("users", "expected a valid integer, unable to parse string as an integer"),
    ],
)
def test_a_wrong_value_that_may_hold_a_secret_is_not_shown(name: str, problem: str) -> None:
    wrong: Any = "geheim" if name == "users" else ["geheim"]

    with pytest.raises(OptionsError) as refused:
        load(Outer, {name: wrong}, ("producer",))

    assert str(refused.value) == f"producer.{name}: {problem}"
    # Nor in what a traceback would print below it.
    assert refused.value.__suppress_context__


# --- a rate for several workers -------------------------------------------------------------------------------------

rates = st.builds(
    RateLimit,
    allowed_messages=st.integers(1, 100_000),
    interval=st.floats(0.001, 10_000.0),
    scope=st.sampled_from(["pipeline", "worker"]),
)


@given(rates, st.integers(1, 200))
def test_the_parts_of_a_rate_add_up_to_the_whole(rate: RateLimit, workers: int) -> None:
    parts = [rate.divided(index, workers) for index in range(workers)]

    assert sum(part.allowed_messages / part.interval for part in parts) == pytest.approx(
        rate.allowed_messages / rate.interval
    )
    assert {part.scope for part in parts} == {rate.scope}
    if rate.allowed_messages >= workers:
        assert sum(part.allowed_messages for part in parts) == rate.allowed_messages
        assert {part.interval for part in parts} == {rate.interval}
        shares = {part.allowed_messages for part in parts}
        assert max(shares) - min(shares) <= 1
    else:
        assert {part.allowed_messages for part in parts} == {1}


def test_one_worker_has_the_rate_whole() -> None:
    rate = RateLimit(allowed_messages=5, interval=1.0)

    assert rate.divided(0, 1) is rate
    assert [rate.divided(index, 3).allowed_messages for index in range(3)] == [2, 2, 1]
    assert rate.divided(3, 10) == RateLimit(allowed_messages=1, interval=2.0)


class _Secretive(Options):
    url: str | list[str] = ""
    urls: tuple[str, ...] = ()
    passwd: str = ""
    apiKey: str = ""  # noqa: N815  # written as users write it
    headers: tuple[str, ...] = ()


@pytest.mark.parametrize(
    "raw",
    [
        {"url": [b"geheim\xff"]},
        {"urls": [b"geheim\xff"]},
        {"passwd": ["geheim"]},
        {"apiKey": ["geheim"]},
        {"headers": [["geheim"]]},
        "amqp://guest:geheim@host/",
    ],
    ids=str,
)
def test_what_may_be_a_secret_is_not_shown(raw: Any) -> None:
    with pytest.raises(OptionsError) as refused:
        load(_Secretive, raw, ("producer",))

    assert "geheim" not in str(refused.value)


def test_a_setting_called_self_is_unknown_like_any_other() -> None:
    with pytest.raises(OptionsError) as refused:
        load(RateLimit, {"allowed_messages": 1, "interval": 1, "self": 1})

    assert str(refused.value) == "self: unknown setting; known here: allowed_messages, interval, scope"


@conforms("B-005")
def test_a_batch_size_function_takes_two_arguments() -> None:
    with pytest.raises(OptionsError) as refused:
        Batcher(batch_size=(0, len), max_demand=3)

    assert str(refused.value).startswith(
        "batch_size: expected a positive whole number or (initial, fn), "
        "with fn(message, acc) -> ('emit' | 'cont', acc), got (0, <built-in function len>)"
    )
