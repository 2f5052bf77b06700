"""``aggregators`` and ``state``: what they come to, and each refusal as a whole sentence with its path."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import pytest

from broadway_py import (
    Aggregator,
    Batcher,
    DefinitionError,
    FailurePolicy,
    Message,
    OptionsError,
    Pipeline,
    State,
    Window,
    WindowResult,
)
from broadway_py._core.window.shape import Fixed
from broadway_py.aggregates import Collect, Count, Greatest, Latest, Least, Mean, Total
from broadway_py.aggregator import AggregatorOptions
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition, define
from broadway_py.producers import DummyProducer, MemoryProducer, Producer, ProducerDescription, QueueProducer
from broadway_py.producers.queue_sink import QueueSink
from tests.pipeline.support import events_logged


@dataclass
class Order:
    ts: float
    country: str
    amount: int


def by(message: Message[Order]) -> float:
    return message.data.ts


class Revenue(Aggregator[str, Order, int]):
    window = Window.fixed("1m", by=by, delay="10s")

    def key(self, message: Message[Order]) -> str:
        return message.data.country

    def initial(self) -> int:
        return 0

    def add(self, acc: int, message: Message[Order]) -> int:
        return acc + message.data.amount

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        """Never called."""


class Shop(Pipeline[Order]):
    producer = DummyProducer()
    aggregators = {"revenue": Revenue}  # noqa: RUF012  # an option
    state: Any = "memory"

    async def handle_message(self, message: Message[Order]) -> None:
        """Never called."""


def refused(make: Callable[[], Any]) -> str:
    """The sentences with which *make* is refused."""
    with pytest.raises((OptionsError, DefinitionError)) as caught:
        make()
    found = caught.value
    return "\n".join(map(str, found.all())) if isinstance(found, OptionsError) else str(found)


def changed(base: type = Revenue, **attributes: Any) -> type[Aggregator[Any, Any, Any]]:
    """A class like *base* with other attributes."""
    return type("Own", (base,), attributes)


def refusal_of(**attributes: Any) -> str:
    """The sentences with which a pipeline is refused whose aggregator has these attributes."""
    return refused(lambda: Shop(aggregators={"revenue": changed(**attributes)}))


def of_file(**settings: Any) -> Shop:
    return Shop.from_settings(settings, name="shop", path=("pipelines", "shop"))


def defined(aggregator: Aggregator[Any, Any, Any]) -> AggregatorDefinition:
    return define("revenue", aggregator, context=None)


# --- what they come to


def test_a_class_and_an_object_become_an_object_of_the_pipeline() -> None:
    given = Revenue(max_demand=5)
    shop = Shop(aggregators={"a": Revenue, "b": given}, context="the context")
    for name in ("a", "b"):
        assert isinstance(shop.aggregators[name], Revenue)
        assert (shop.aggregators[name].name, shop.aggregators[name].context) == (name, "the context")
    assert [each.max_demand for each in shop.aggregators.values()] == [1000, 5]
    assert not hasattr(given, "name"), "another pipeline may take it, too"


def test_a_definition_has_everything_with_defaults() -> None:
    made = defined(Revenue())
    assert (made.key_type, made.data_type, made.acc_type, made.version) == (str, Order, int, 1)
    assert made.options == AggregatorOptions()
    assert made.window.shape == Fixed("fixed", 60.0, 60.0, 0.0)
    assert (made.window.delay, made.window.lateness, made.window.max_ahead) == (10.0, 0.0, 60.0)
    assert (made.window.idle_timeout, made.window.hold_timeout, made.window.triggers.on_time) == (60.0, 60.0, True)
    assert [made.has(name) for name in ("emit", "merge", "late", "identity", "setup")] == [True, *[False] * 4]


def test_what_is_given_replaces_what_the_class_says_and_that_what_its_window_says() -> None:
    class Own(Revenue):
        window = Window.fixed("1m", by=by, delay="10s", lateness=1, max_ahead=5, idle_timeout=5, hold_timeout=5)
        delay = "20s"
        lateness = "20s"
        max_ahead = None
        emit_batch = 7
        emit_timeout = "2s"

    made = defined(Own(lateness=30, idle_timeout=None, max_demand=9))
    window = made.window
    assert (window.delay, window.lateness, window.max_ahead, window.idle_timeout) == (20.0, 30.0, None, None)
    assert window.hold_timeout == 5.0
    assert (made.options.emit_batch, made.options.emit_timeout, made.options.max_demand) == (7, 2.0, 9)
    assert (made.aggregator.emit_timeout, made.aggregator.max_demand) == (2.0, 9)


def test_a_constructor_of_the_user_need_not_call_ours() -> None:
    class Own(Revenue):
        def __init__(self, factor: int) -> None:
            self.factor = factor
            self.max_open = 5

    made = defined(Own(3))
    assert (made.options.max_open, made.options.max_demand) == (5, 1000)


K = TypeVar("K")
T = TypeVar("T")


def test_emit_may_be_left_out_if_results_are_published() -> None:
    class Own(Revenue):
        emit = Aggregator.emit

    sink = QueueSink("var/out.db", "results")
    made = defined(Own(emit_to=sink))
    assert (made.options.emit_to, made.has("emit")) == (sink, False)


class Listed(Aggregator[K, T, list[T]], Generic[T, K]):
    """One whose types are open, in another order."""

    window = Window.count(3)

    def key(self, message: Message[T]) -> K:
        raise NotImplementedError

    def initial(self) -> list[T]:
        raise NotImplementedError

    def add(self, acc: list[T], message: Message[T]) -> list[T]:
        raise NotImplementedError

    async def emit(self, results: list[WindowResult[K, list[T]]]) -> None:
        """Never called."""


class Between(Listed[T, tuple[str, int]]):
    """Names one of them."""


class Closed(Between[float]):
    """Names the other one."""


class Plainly(Closed):
    """Says nothing about types."""


@pytest.mark.parametrize("kind", [Closed, Plainly])
def test_types_are_found_through_base_classes(kind: type[Closed]) -> None:
    made = defined(kind())
    assert (made.key_type, made.data_type, made.acc_type) == (tuple[str, int], float, list[float])


def test_a_path_is_a_state() -> None:
    assert Shop(state=Path("var/shop.db")).state == State("var/shop.db")
    assert Shop(state=State("memory", dedup=5)).state == State("memory", dedup=5)
    assert Pipeline.state is None


def test_handle_batch_is_not_required_if_there_are_only_aggregators() -> None:
    assert Shop().batchers == {}


# --- files


def test_settings_of_a_file_are_merged_over_the_aggregators_of_the_class() -> None:
    class Own(Shop):
        aggregators = {"a": Revenue, "b": Revenue(max_demand=7, delay=1), "c": Revenue}  # noqa: RUF012  # an option

    shop = Own.from_settings(
        {"aggregators": {"a": {"lateness": "5m", "max_ahead": None}, "b": {"delay": "30s"}, "c": None}}, name="shop"
    )
    assert list(shop.aggregators) == ["a", "b"]
    a, b = (defined(each).window for each in shop.aggregators.values())  # type: ignore[arg-type]  # they are objects
    assert (a.delay, a.lateness, a.max_ahead, b.delay) == (10.0, 300.0, None, 30.0)
    assert shop.aggregators["b"].max_demand == 7
    assert defined(Revenue()).window.delay == 10.0, "the class stays as it is"


@pytest.mark.parametrize(
    ("before", "section", "after"),
    [
        (None, "var/shop.db", State("var/shop.db")),
        (None, {"path": "var/shop.db", "dedup": "5m"}, State("var/shop.db", dedup=300)),
        ("var/a.db", {"checkpoint_interval": "1s"}, State("var/a.db", checkpoint_interval=1)),
        (State("var/a.db", dedup=5), "var/b.db", State("var/b.db", dedup=5)),
        (State("var/a.db", dedup=5), {"path": "var/b.db"}, State("var/b.db", dedup=5)),
        ("var/a.db", None, None),
    ],
)
def test_a_state_of_a_file_is_merged_over_that_of_the_class(before: Any, section: Any, after: State | None) -> None:
    own: Any = type("Own", (Shop,), {"state": before, "aggregators": {}})
    assert own.from_settings({"state": section}, name="shop").state == after


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"aggregators": {"revenu": {"delay": 1}}},
            "pipelines.shop.aggregators.revenu: unknown aggregator; the class has revenue; did you mean 'revenue'?",
        ),
        (
            {"aggregators": ["revenue"]},
            "pipelines.shop.aggregators: expected a section with one entry for each aggregator, got a list",
        ),
        (
            {"aggregators": {"revenue": 3}},
            "pipelines.shop.aggregators.revenue: expected a section of settings, got int",
        ),
        (
            {"aggregators": {"revenue": {"latenes": 1}}},
            (
                "pipelines.shop.aggregators.revenue.latenes: unknown setting; known here: delay, emit_batch, "
                "emit_timeout, emit_to, hold_timeout, idle_timeout, lateness, max_ahead, max_demand, max_open, "
                "max_pending, require_identity; did you mean 'lateness'?"
            ),
        ),
        (
            {"aggregators": {"revenue": {"delay": "soon"}}},
            (
                "pipelines.shop.aggregators.revenue.delay: expected a duration in seconds, or text such as '500ms', "
                "'2s', '1m', got 'soon'"
            ),
        ),
        ({"state": {"dedup": -1}}, "pipelines.shop.state.dedup: expected greater than or equal to 0, got -1"),
        (
            {"state": {"pth": "a"}},
            (
                "pipelines.shop.state.pth: unknown setting; known here: checkpoint_interval, dedup, path; did you mean "
                "'path'?"
            ),
        ),
        (
            {"state": None},
            (
                "pipelines.shop.state: required with aggregators, but missing: the file that keeps their windows, such "
                "as var/shop.db"
            ),
        ),
    ],
)
def test_a_wrong_setting_of_a_file_is_refused(settings: dict[str, Any], sentence: str) -> None:
    assert refused(lambda: of_file(**settings)) == sentence


def test_a_file_cannot_add_an_aggregator() -> None:
    assert refused(lambda: Pipeline.from_settings({"aggregators": {"revenue": {}}}, name="shop")) == (
        "aggregators.revenue: unknown aggregator; the class has no aggregators"
    )


def test_several_workers_are_refused() -> None:
    def make() -> object:
        return Shop.from_settings({}, name="shop", path=("pipelines", "shop"), share=(0, 2))

    assert refused(make) == (
        "pipelines.shop.aggregators: a key must have one owner, but 2 workers read the same source; set workers: 1, "
        "leave the aggregators out, or part the source (partitions), so that each worker owns some of the partitions"
    )


# --- what is refused


@pytest.mark.parametrize(
    ("aggregators", "sentence"),
    [
        ([Revenue], "aggregators: expected a dict of name -> Aggregator, got a list"),
        ({3: Revenue}, "aggregators: expected names as text, got 3"),
        (
            {"revenue": "Revenue"},
            "aggregators.revenue: expected a subclass of Aggregator, or an object of one, got a str",
        ),
        (
            {"revenue": Batcher},
            "aggregators.revenue: expected a subclass of Aggregator, or an object of one, got the class Batcher",
        ),
        (
            {"revenue": Aggregator},
            (
                "aggregators.revenue.add: required, but missing; write `def add` in the class Aggregator\n"
                "aggregators.revenue.initial: required, but missing; write `def initial` in the class Aggregator\n"
                "aggregators.revenue.key: required, but missing; write `def key` in the class Aggregator"
            ),
        ),
    ],
)
def test_what_is_no_aggregator_is_refused(aggregators: Any, sentence: str) -> None:
    assert refused(lambda: Shop(aggregators=aggregators)) == sentence


def test_a_class_that_needs_arguments_is_refused() -> None:
    class Own(Revenue):
        def __init__(self, factor: int) -> None:
            self.factor = factor

    assert refused(lambda: Shop(aggregators={"revenue": Own})) == (
        "aggregators.revenue: expected a subclass of Aggregator, or an object of one, got the class Own, which cannot "
        "be made without arguments: test_a_class_that_needs_arguments_is_refused.<locals>.Own.__init__() missing 1 "
        "required positional argument: 'factor'"
    )


def test_the_name_of_a_batcher_is_refused() -> None:
    class Both(Shop):
        batchers = {"revenue": Batcher()}  # noqa: RUF012  # an option

        async def handle_batch(self, messages: Any, info: Any) -> None:
            """Never called."""

    assert refused(Both) == (
        "aggregators.revenue: a batcher is called 'revenue', too, and message.batcher names both; give one of them "
        "another name"
    )


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        (
            {"window": None},
            (
                "aggregators.revenue.window: required, but missing; give the class a window, such as "
                "Window.fixed('1m', by=…, delay='10s')"
            ),
        ),
        (
            {"window": "1m"},
            "aggregators.revenue.window: expected a Window, such as Window.fixed('1m', by=…, delay='10s'), got a str",
        ),
        (
            {"window": Window.fixed("1m", by=by)},
            (
                "aggregators.revenue.window.delay: required, but missing: how long after its own time a message may "
                "still arrive, such as '10s'"
            ),
        ),
        (
            {"window": Window.session("1m", by=by, delay=1)},
            (
                "aggregators.revenue.merge: required for sessions, but missing: a message between two sessions makes "
                "them one; write `def merge(self, a, b)`, which returns both accumulators as one"
            ),
        ),
        (
            {"window": Window.count(3).trigger(int, print)},
            (
                "aggregators.revenue.window.trigger: only a flow can have a trigger function: an aggregator cannot "
                "store its state"
            ),
        ),
        (
            {"window": Window.global_()},
            (
                "aggregators.revenue.window: expected a window that ends, got Window.global_(): it would give no "
                "result before the source ends; choose another kind, such as Window.calendar('day', tz='UTC', by=…, "
                "delay='10s')"
            ),
        ),
        (
            {"window": Window.count(3), "delay": 5, "max_ahead": None},
            (
                "aggregators.revenue.delay: only a window of event time has this setting, and a count window is none; "
                "leave it out\n"
                "aggregators.revenue.max_ahead: only a window of event time has this setting, and a count window is "
                "none; leave it out"
            ),
        ),
        (
            {"emit": Aggregator.emit},
            (
                "aggregators.revenue.emit: required, but missing: nobody would take the results; write `async def "
                "emit(self, results)`, or set emit_to, such as QueueSink('var/out.db', 'results')"
            ),
        ),
        ({"version": 0}, "aggregators.revenue.version: expected a whole number of 1 or more, got 0"),
        ({"version": "2"}, "aggregators.revenue.version: expected a whole number of 1 or more, got '2'"),
        ({"version": True}, "aggregators.revenue.version: expected a whole number of 1 or more, got True"),
        ({"max_demand": 0}, "aggregators.revenue.max_demand: expected greater than or equal to 1, got 0"),
        (
            {"delay": "soon"},
            (
                "aggregators.revenue.delay: expected a duration in seconds, or text such as '500ms', '2s', '1m', got "
                "'soon'"
            ),
        ),
    ],
)
def test_an_aggregator_that_cannot_work_is_refused(attributes: dict[str, Any], sentence: str) -> None:
    assert refusal_of(**attributes) == sentence


async def waiting(message: Message[Any]) -> float:
    """Returns too late."""
    return 0.0


def test_a_function_of_times_that_waits_is_refused() -> None:
    assert refusal_of(window=Window.fixed("1m", by=waiting, delay=1)) == (
        "aggregators.revenue.window.by: expected a plain function, got async def: it runs between two messages, where "
        "nothing may wait; write a plain function, and do what must wait in handle_message"
    )


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Window.fixed(0, by=by), "size: expected a duration of at least one microsecond, got 0"),
        (lambda: Window.sliding("1m", -1, by=by), "every: expected a duration of at least one microsecond, got -1"),
        (lambda: Window.session("0s", by=by), "gap: expected a duration of at least one microsecond, got '0s'"),
        (
            lambda: Window.sliding("1m", "2m", by=by),
            "every: expected at most size (60 s), got 120 s: an event between two windows would be in none",
        ),
        (
            lambda: Window.calendar("day", tz="Europe/Berln", by=by),
            "tz: expected the name of a time zone such as 'Europe/Berlin', got 'Europe/Berln': it is not known here",
        ),
    ],
)
def test_a_window_that_cannot_be_is_refused_when_it_is_written(make: Callable[[], Window], sentence: str) -> None:
    assert refused(make) == sentence


class WithoutTypes(Aggregator):  # type: ignore[type-arg]  # that is the mistake
    window = Window.count(3)
    key = initial = add = lambda *_: None  # type: ignore[assignment]  # never called

    async def emit(self, results: list[Any]) -> None:
        """Never called."""


class WithUnhashableKeys(Aggregator[list[str], Order, int]):
    window = Window.count(3)
    key = initial = add = lambda *_: None  # type: ignore[assignment]  # never called

    async def emit(self, results: list[Any]) -> None:
        """Never called."""


@pytest.mark.parametrize("kind", [WithoutTypes, Between, Listed])
def test_missing_types_are_refused(kind: Any) -> None:
    assert refused(lambda: Shop(aggregators={"revenue": kind})) == (
        "aggregators.revenue: expected the types of key, data and accumulator, which say how windows are stored, as in "
        f"class {kind.__name__}(Aggregator[str, Order, int]), got a class without them"
    )


def test_a_key_that_is_not_hashable_is_refused() -> None:
    assert refused(lambda: Shop(aggregators={"revenue": WithUnhashableKeys})) == (
        "aggregators.revenue: expected a key type that is hashable, such as str, int or a tuple of them, got list"
    )


class Opaque:
    """Pydantic cannot write it."""


def of_types(key: Any, acc: Any) -> type[Aggregator[Any, Any, Any]]:
    def fill(body: dict[str, Any]) -> None:
        body.update(window=Window.count(3), key=Revenue.key, initial=Revenue.initial, add=Revenue.add)
        body.update(emit=Revenue.emit, __module__=__name__)

    return types.new_class("Own", (Aggregator[key, Order, acc],), exec_body=fill)


@pytest.mark.parametrize(
    ("key", "acc", "sentence"),
    [
        (
            str,
            list[Opaque],
            (
                "aggregators.revenue.value.[item]: JSON cannot say values of Opaque: use a dataclass, a pydantic "
                "model, or a type such as int, str or list"
            ),
        ),
        (
            Opaque,
            int,
            (
                "aggregators.revenue.key: JSON cannot say values of Opaque: use a dataclass, a pydantic model, or a "
                "type such as int, str or list"
            ),
        ),
        (
            str,
            Any,
            (
                "aggregators.revenue.value: Any may be of any type, and JSON does not say which: name the type, or use "
                "pydantic.JsonValue for what JSON itself can say"
            ),
        ),
    ],
)
def test_types_that_cannot_be_stored_are_refused(key: Any, acc: Any, sentence: str) -> None:
    assert refused(lambda: Shop(aggregators={"revenue": of_types(key, acc)})) == sentence


@pytest.mark.parametrize(
    "acc",
    [Count, Total[int], Total[Decimal], Mean, Least[str], Greatest[float], Latest[Order], Collect[tuple[str, int]]],
)
def test_the_accumulators_of_the_box_can_be_stored(acc: Any) -> None:
    assert define("revenue", of_types(str, acc)(), None).acc_type == acc


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = refused(
        lambda: Shop(aggregators={"a": changed(window=None, version=0), "b": changed(max_open=0)}, state=None)
    )
    assert [line.split(":")[0] for line in found.split("\n")] == [
        "aggregators.a.window",
        "aggregators.a.version",
        "aggregators.b.max_open",
        "state",
    ]


# --- the state and the sources


@pytest.mark.parametrize("state", [3, {"path": "a"}, b"var/shop.db"])
def test_a_state_of_another_type_is_refused(state: Any) -> None:
    kind = type(state).__name__
    article = "an" if kind[0] in "aeiou" else "a"
    assert refused(lambda: Shop(state=state)) == (
        f"state: expected the path of a file such as 'var/shop.db', or State(…), got {article} {kind}"
    )


def test_an_empty_path_is_refused() -> None:
    assert refused(lambda: Shop(state="")) == "state.path: expected the path of a file, or 'memory', got ''"


def test_no_state_is_refused() -> None:
    assert refused(lambda: Shop(state=None)) == (
        "state: required with aggregators, but missing: the file that keeps their windows, such as var/shop.db"
    )
    assert Shop(state=None, aggregators={}).state is None


def test_memory_is_refused_if_the_messages_of_a_source_outlive_the_process() -> None:
    source = QueueProducer("var/queue.db", "orders", name="orders")
    assert refused(lambda: Shop(producer=[MemoryProducer([]), source])) == (
        "state: expected the path of a file, got 'memory': the messages of the source 'orders' outlive this process, "
        "and its windows would not; choose a file such as var/shop.db"
    )
    Shop(producer=source, state="var/shop.db")


def test_a_producer_of_the_user_can_say_that_its_messages_outlive_the_process() -> None:
    class Own(Producer):
        name = "own"

    class Lasting(Own):
        outlives_process = True

    Shop(producer=Own())
    assert refused(lambda: Shop(producer=Lasting())).startswith("state: expected the path of a file, got 'memory'")


def test_the_source_is_read_alone_if_it_can_be() -> None:
    class Own(ProducerDescription):
        asked = 0

        def create(self) -> Producer:
            raise NotImplementedError

        def for_order(self) -> Self:
            self.asked += 1
            return self

    asked: list[int] = []
    several: list[dict[str, Any]] = [{}, {"aggregators": {}}]
    for options in several:
        source = Own()
        Shop(producer=source, **options)
        asked.append(source.asked)
    assert asked == [1, 0]


def test_a_state_on_a_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broadway_py.pipeline.aggregator_options.network_file_system", lambda _: "nfs4")
    path = str(tmp_path / "shop.db")
    assert refused(lambda: Shop(state=path)) == (
        f"state: expected a path on a disk of this machine, got {path!r} on a network file system (nfs4), where one "
        "process cannot tell what another does and the file would be damaged"
    )


def test_a_source_that_forgets_at_once_is_refused() -> None:
    rabbitmq = pytest.importorskip("broadway_py.producers.rabbitmq")
    source = rabbitmq.RabbitMQProducer("orders", consume_options={"no_ack": True}, on_failure="ack")
    assert refused(lambda: Shop(producer=source, state="var/shop.db", failure=None)) == (
        "producer.consume_options.no_ack: expected false with aggregators, got true: the broker forgets a message when "
        "it hands it out, so a crash would lose what is not stored yet; leave no_ack out"
    )


# --- what is warned of


def test_retries_that_come_after_the_windows_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Shop(failure=FailurePolicy(attempts=8))
    assert events_logged(caplog) == [
        (
            "a message of 'revenue' that fails may come back for its last attempt 127 s after the first one, but its "
            "windows wait for delay + lateness + hold_timeout = 70 s, so it may be late then: raise hold_timeout or "
            "lateness, or lower the attempts or the back-off of failure"
        )
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"failure": None},
        {"failure": FailurePolicy(attempts=8), "aggregators": {"revenue": changed(lateness=57)}},
        {"failure": FailurePolicy(attempts=8), "aggregators": {"revenue": changed(window=Window.count(3))}},
    ],
)
def test_retries_that_come_in_time_are_not_warned_of(caplog: pytest.LogCaptureFixture, options: dict[str, Any]) -> None:
    Shop(**options)
    assert events_logged(caplog) == []
