"""What a pipeline class and its options may say: mistakes are refused at once, with the whole sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broadway_py import Batcher, DefinitionError, Message, OptionsError, Pipeline, Processors, RateLimit
from broadway_py.machine import usable_processors
from broadway_py.producers import DummyProducer
from tests.pipeline.support import Quiet, running
from tests.support.conformance import conforms

HERE = __name__


def refused(make: Callable[[], Any]) -> str:
    """The sentence with which *make* is refused."""
    with pytest.raises((OptionsError, DefinitionError)) as caught:
        make()
    return str(caught.value)


# --- the class


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("handle_mesage", "handle_message"),
        ("handle_messages", "handle_message"),
        ("handle_batches", "handle_batch"),
        ("handle_failure", "handle_failed"),
        ("prepare_message", "prepare_messages"),
        ("partition_buy", "partition_by"),
        ("tear_down", "teardown"),
    ],
)
def test_a_misspelt_callback_is_refused_when_the_class_is_made(name: str, meant: str) -> None:
    async def callback(self: Any, message: Any) -> None:
        """Never called."""

    sentence = refused(lambda: type("Orders", (Quiet,), {name: callback, "__module__": HERE}))

    assert sentence == (
        f"{HERE}.Orders defines {name!r}, which is not a callback of a pipeline; did you mean {meant!r}?"
    )


@pytest.mark.parametrize(
    ("name", "meant"), [("procesors", "processors"), ("batcher", "batchers"), ("schemas", "schema")]
)
def test_a_misspelt_option_in_the_class_is_refused(name: str, meant: str) -> None:
    sentence = refused(lambda: type("Orders", (Quiet,), {name: None, "__module__": HERE}))

    assert sentence == f"{HERE}.Orders defines {name!r}, which is not an option of a pipeline; did you mean {meant!r}?"


def test_names_of_the_users_own_are_fine() -> None:
    class Own(Quiet):
        retries = 3
        _handle_message = None

        def lookup(self) -> None:
            """Something else."""

    assert Own().retries == 3


@pytest.mark.parametrize(
    ("name", "signature", "callback"),
    [
        ("handle_message", "(_)", lambda _: None),
        ("handle_message", "(_a, _b, _c)", lambda _a, _b, _c: None),
        ("handle_batch", "(_a, _b)", lambda _a, _b: None),
        ("setup", "(_a, _b)", lambda _a, _b: None),
    ],
)
def test_a_callback_that_cannot_be_called_is_refused(name: str, signature: str, callback: Any) -> None:
    expected = {
        "handle_message": "handle_message(self, message)",
        "handle_batch": "handle_batch(self, messages, info)",
        "setup": "setup(self)",
    }

    sentence = refused(lambda: type("Orders", (Quiet,), {name: callback, "__module__": HERE}))

    assert sentence == f"{HERE}.Orders.{name}{signature} cannot be called; expected {expected[name]}"


def test_a_callback_that_is_no_method_is_refused() -> None:
    sentence = refused(lambda: type("Orders", (Quiet,), {"handle_failed": 17, "__module__": HERE}))

    assert sentence == f"{HERE}.Orders.handle_failed must be a method, got int"


async def test_static_and_class_methods_are_callbacks_too() -> None:
    seen: list[Any] = []

    class Static(Pipeline[Any]):
        producer = DummyProducer()

        @staticmethod
        async def handle_message(message: Message[Any]) -> None:
            seen.append(message.data)

        @classmethod
        async def handle_failed(cls, messages: list[Message[Any]]) -> None:
            seen.append(len(messages))

    async with running(pipeline := Static()):
        await pipeline.submit(1)

    assert seen == [1]


def test_a_pipeline_without_handle_message_is_refused() -> None:
    class Empty(Pipeline[Any]):
        producer = DummyProducer()

    assert refused(Empty) == (
        f"{HERE}.test_a_pipeline_without_handle_message_is_refused.<locals>.Empty has no handle_message; "
        "define `async def handle_message(self, message)`"
    )


def test_batchers_without_handle_batch_are_refused() -> None:
    assert refused(lambda: Quiet(batchers={"default": Batcher()})) == (
        "tests.pipeline.support.Quiet has batchers but no handle_batch; "
        "define `async def handle_batch(self, messages, info)`"
    )


# --- the constructor


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    assert refused(lambda: Quiet(procesors=Processors())) == (
        "procesors: unknown option; known: aggregators, batch_defaults, batchers, context, deduplicate_by, "
        "fail_fast, failure, max_in_flight_bytes, max_restarts, max_seconds, name, ordered, own, partition_by, "
        "processors, producer, publishers, rate_limit, schema, shutdown_timeout, state, tracing, transformer; "
        "did you mean 'processors'?"
    )


@conforms("B-003")
@pytest.mark.parametrize(("name", "came"), [(17, "int"), (b"orders", "bytes"), (["orders"], "list")])
def test_a_name_that_is_no_text_is_refused(name: Any, came: str) -> None:
    assert refused(lambda: Quiet(name=name)) == f"name: expected text, got {came}"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"processors": 3}, "processors: expected Processors(…), got int"),
        ({"processors": Batcher()}, "processors: expected Processors(…), got Batcher"),
        ({"batchers": [Batcher()]}, "batchers: expected a dict of name -> Batcher(…), got list"),
        ({"batchers": {"default": {}}}, "batchers.default: expected Batcher(…), got dict"),
        ({"batchers": {1: Batcher()}}, "batchers: expected names as text, got 1"),
        ({"batchers": {"": Batcher()}}, "batchers: expected names as text, got ''"),
        ({"rate_limit": 100}, "rate_limit: expected RateLimit(…), got int"),
        ({"partition_by": "customer"}, "partition_by: expected a function of one message, got str"),
        ({"transformer": 3}, "transformer: expected a function of one message, got int"),
        ({"max_restarts": -1}, "max_restarts: expected greater than or equal to 0, got -1"),
        ({"max_seconds": 0}, "max_seconds: expected greater than 0, got 0"),
        (
            {"shutdown_timeout": "soon"},
            "shutdown_timeout: expected a duration in seconds, or text such as '500ms', '2s', '1m', got 'soon'",
        ),
        ({"fail_fast": "yes"}, "fail_fast: expected true or false, got 'yes'"),
    ],
)
def test_a_wrong_option_is_refused_with_its_path(options: dict[str, Any], sentence: str) -> None:
    assert refused(lambda: Quiet(**options)) == sentence


@conforms("B-004")
def test_an_unknown_setting_of_a_batcher_is_refused_with_path_and_known_ones() -> None:
    known = "batch_size, batch_timeout, concurrency, executor, max_batch_bytes, max_demand, partition_by, timeout"
    misspelt: dict[str, Any] = {"batch_sizes": 3}
    assert refused(lambda: Batcher(**misspelt)) == (
        f"batch_sizes: unknown setting; known here: {known}; did you mean 'batch_size'?"
    )

    class Batched(Quiet):
        async def handle_batch(self, messages: Any, info: Any) -> None:
            """Never called."""

    settings = {"batchers": {"audit": misspelt}}
    assert refused(lambda: Batched.from_settings(settings, name="orders", path=("pipelines", "orders"))) == (
        f"pipelines.orders.batchers.audit.batch_sizes: unknown setting; known here: {known}; did you mean 'batch_size'?"
    )


@conforms("B-005")
@pytest.mark.parametrize("function", [lambda _: ("cont", 0), lambda: None, lambda _a, _b, _c: None])
def test_a_batch_size_function_of_other_than_two_arguments_is_refused(function: Any) -> None:
    sentence = refused(lambda: Batcher(batch_size=(0, function), max_demand=10))

    assert sentence.startswith("batch_size: expected a positive whole number or (initial, fn), with fn(message, acc)")


@conforms("B-006")
@pytest.mark.parametrize("size", [lambda _, acc: ("cont", acc), 0, -1, 1.5, "10", True, (1,), (0, 3), None])
def test_a_batch_size_that_is_neither_number_nor_pair_is_refused(size: Any) -> None:
    sentence = refused(lambda: Batcher(batch_size=size, max_demand=10))

    assert sentence.startswith(
        "batch_size: expected a positive whole number or (initial, fn), "
        "with fn(message, acc) -> ('emit' | 'cont', acc), got "
    )


@conforms("B-007")
def test_a_batch_size_function_needs_max_demand() -> None:
    assert refused(lambda: Batcher(batch_size=(0, lambda _, acc: ("cont", acc)))) == (
        "max_demand: required when batch_size is a function"
    )


def test_demands_with_which_nothing_would_ever_be_asked_are_refused() -> None:
    assert refused(lambda: Processors(max_demand=0)) == "max_demand: expected greater than or equal to 1, got 0"
    assert refused(lambda: Processors(max_demand=4, min_demand=4)) == (
        "min_demand: expected less than max_demand (4), got 4: with it, a processor might never ask for messages again"
    )
    assert refused(lambda: Processors(min_demand=-1)) == "min_demand: expected greater than or equal to 0, got -1"
    assert refused(lambda: Processors(concurrency=0)) == "concurrency: expected greater than or equal to 1, got 0"
    assert refused(lambda: Batcher(batch_timeout=0)) == "batch_timeout: expected greater than 0, got 0"


def test_option_objects_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Processors(concurrency=3).concurrency = 4  # type: ignore[misc]  # frozen, which is the point


# --- defaults and precedence


@conforms("B-010", "B-014")
def test_the_defaults_are_those_that_are_written_down() -> None:
    class Plain(Pipeline[Any]):
        producer = DummyProducer()

        async def handle_message(self, message: Message[Any]) -> None:
            """Never called."""

    pipeline = Plain()

    assert pipeline.name == "Plain"
    assert pipeline.context is None
    assert pipeline.processors.concurrency == usable_processors().times(2)
    assert (pipeline.processors.max_demand, pipeline.processors.refill_at) == (10, 5)
    assert dict(pipeline.batchers) == {}
    assert (pipeline.shutdown_timeout, pipeline.max_restarts, pipeline.max_seconds) == (25.0, 3, 5.0)
    assert (pipeline.fail_fast, pipeline.rate_limit, pipeline.schema) == (False, None, None)
    batcher = Batcher()
    assert (batcher.batch_size, batcher.batch_timeout, batcher.concurrency) == (100, 1.0, 1)
    assert (batcher.max_batch_bytes, batcher.max_demand, batcher.demand) == (None, None, 100)


def test_an_argument_replaces_the_whole_class_attribute() -> None:
    class Own(Quiet):
        processors = Processors(concurrency=7, max_demand=3)
        context = "class"

    pipeline = Own(processors=Processors(concurrency=2), context="argument")

    assert (pipeline.processors.concurrency, pipeline.processors.max_demand) == (2, 10)
    assert pipeline.context == "argument"
    assert Own().context == "class"


def test_settings_of_a_file_are_merged_field_by_field_over_the_class() -> None:
    class Own(Quiet):
        processors = Processors(concurrency=7, max_demand=3)
        batchers = {"one": Batcher(batch_size=5, batch_timeout=9.0), "two": Batcher()}  # noqa: RUF012  # never changed
        rate_limit = RateLimit(allowed_messages=5, interval=1.0)

        async def handle_batch(self, messages: Any, info: Any) -> None:
            """Never called."""

    pipeline = Own.from_settings(
        {
            "processors": {"concurrency": 2},
            "batchers": {"one": {"batch_size": 50}, "two": None, "three": {"batch_timeout": "500ms"}},
            "rate_limit": {"interval": "1m"},
            "shutdown_timeout": "10s",
        },
        name="from the file",
        producer=DummyProducer(),
    )

    assert pipeline.name == "from the file"
    assert (pipeline.processors.concurrency, pipeline.processors.max_demand) == (2, 3)
    assert {key: (each.batch_size, each.batch_timeout) for key, each in pipeline.batchers.items()} == {
        "one": (50, 9.0),
        "three": (100, 0.5),
    }
    assert pipeline.rate_limit == RateLimit(allowed_messages=5, interval=60.0)
    assert pipeline.shutdown_timeout == 10.0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"procesors": {}},
            (
                "pipelines.p.procesors: unknown setting; known here: aggregators, batch_defaults, batchers, class, "
                "context, deduplicate_by, fail_fast, failure, max_in_flight_bytes, max_restarts, max_seconds, name, "
                "ordered, own, processors, producer, publishers, rate_limit, shutdown_timeout, state, tracing; "
                "did you mean 'processors'?"
            ),
        ),
        ({"processors": 3}, "pipelines.p.processors: expected a section of settings, got int"),
        (
            {"batchers": ["default"]},
            "pipelines.p.batchers: expected a section with one entry for each batcher, got ['default']",
        ),
        (
            {"processors": {"concurrency": "many"}},
            "pipelines.p.processors.concurrency: expected a valid integer, got 'many'",
        ),
        ({"max_restarts": "many"}, "pipelines.p.max_restarts: expected a valid integer, got 'many'"),
    ],
)
def test_a_wrong_setting_of_a_file_is_refused_with_its_whole_path(settings: dict[str, Any], sentence: str) -> None:
    assert refused(lambda: Quiet.from_settings(settings, name="p", path=("pipelines", "p"))) == sentence


async def test_context_is_what_the_callbacks_read() -> None:
    seen: list[Any] = []

    class Reads(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            seen.append(self.context)

    context = object()
    async with running(pipeline := Reads(context=context)):
        await pipeline.submit(1)

    assert seen == [context]
