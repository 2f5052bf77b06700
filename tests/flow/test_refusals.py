"""What is refused when the chain is built: each with its whole sentence."""

from __future__ import annotations

import io
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broadway_py import flow
from broadway_py.errors import DefinitionError, OptionsError
from broadway_py.flow import Window
from broadway_py.stage import ProducerConsumerStage
from tests.support.conformance import conforms

# Without types, because most of what is called here is refused by a type checker, too.
Flow: Any = flow.Flow


def pair(a: Any, b: Any) -> Any:
    return a


def count(counts: Any, word: Any) -> Any:
    return counts


def nothing() -> Any:
    return None


def one(a: Any) -> Any:
    return a


def three(a: Any, b: Any, c: Any) -> Any:
    return a


def four(a: Any, b: Any, c: Any, d: Any) -> Any:
    return a


def keyword(a: Any, *, b: Any) -> Any:
    return a


def with_default(element: Any, more: int = 1) -> Any:
    return element


def by(element: Any) -> Any:
    return element


async def slow(element: Any) -> Any:
    return element


async def slow_pair(a: Any, b: Any) -> Any:
    return a


class Callable1:
    def __call__(self, element: Any) -> Any:
        return element


class AsyncCallable:
    async def __call__(self, element: Any) -> Any:
        return element


async def later(element: Any) -> Any:
    yield element


class Passed(ProducerConsumerStage[Any, Any]):
    async def handle_events(self, events: list[Any]) -> list[Any]:
        return events


nums = Flow.from_iterable([1, 2, 3])
red = nums.map(str).reduce(dict, count)
fixed = Window.fixed(1, by=by)
everything: Any = Window.global_()
untyped: Any = nothing


def refused(make: Callable[[], object], kind: type[Exception]) -> str:
    """The sentence with which what *make* chains is refused."""
    with pytest.raises(kind) as caught:
        make()
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: red.reduce(dict, count),
            (
                "reduce 3: these stages have the reduction 'reduce 2: count'; "
                "write .partition() or .shuffle() before .reduce"
            ),
        ),
        (
            lambda: red.emit("state").group_by(len),
            (
                "group_by 4: these stages have the reduction 'reduce 2: count'; "
                "write .partition() or .shuffle() before .group_by"
            ),
        ),
    ],
)
@conforms("F-022")
def test_a_second_reduction_of_the_same_stages_is_refused(make: Callable[[], object], sentence: str) -> None:
    assert refused(make, DefinitionError) == sentence


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: nums.emit("state"),
            (
                "emit 1: these stages have no reduction, so their windows emit nothing; "
                "write .reduce(init, fn), or another reduction, before .emit"
            ),
        ),
        (
            lambda: nums.on_trigger(count),
            (
                "on_trigger 1: these stages have no reduction, so their windows emit nothing; "
                "write .reduce(init, fn), or another reduction, before .on_trigger"
            ),
        ),
    ],
)
@conforms("F-023")
def test_what_windows_emit_without_a_reduction_is_refused(make: Callable[[], object], sentence: str) -> None:
    assert refused(make, DefinitionError) == sentence


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: nums.map(str).map_batch(list),
            (
                "map_batch 2: it gets the lists in which elements arrive, so it cannot stand behind 'map 1: str'; "
                "write it first, or write .shuffle() before .map_batch"
            ),
        ),
        (
            lambda: red.map_batch(list),
            (
                "map_batch 3: what map_batch gets behind 'reduce 2: count' is not clear; "
                'write .emit("state"), .emit("events") or .on_trigger(fn) before .map_batch'
            ),
        ),
    ],
)
@conforms("F-024")
def test_lists_behind_single_elements_is_refused(make: Callable[[], object], sentence: str) -> None:
    assert refused(make, DefinitionError) == sentence


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: red.map(str),
            (
                "map 3: what map gets behind 'reduce 2: count' is not clear; "
                'write .emit("state"), .emit("events") or .on_trigger(fn) before .map'
            ),
        ),
    ],
)
@conforms("F-025")
def test_a_mapper_straight_behind_a_reduction_is_refused(make: Callable[[], object], sentence: str) -> None:
    assert refused(make, DefinitionError) == sentence


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            nums.partition(window=Window.count(3)).explain,
            (
                "partition 1: nothing is collected in its count window; "
                "write .reduce(init, fn), or another reduction, behind it, or leave the window out"
            ),
        ),
        (
            lambda: nums.partition(window=Window.count(3)).partition(),
            (
                "partition 1: nothing is collected in its count window; "
                "write .reduce(init, fn), or another reduction, behind it, or leave the window out"
            ),
        ),
    ],
)
@conforms("F-026")
def test_a_window_without_a_computation_is_refused(make: Callable[[], object], sentence: str) -> None:
    assert refused(make, DefinitionError) == sentence


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: nums.map(3), "map 1: expected a function of (element), got an int; write operator.itemgetter(3)"),
        (
            lambda: nums.map("name"),
            "map 1: expected a function of (element), got a str; write operator.itemgetter('name')",
        ),
        (lambda: nums.map(pair), "map 1: expected a function of (element), got pair(a, b)"),
        (lambda: nums.map(nothing), "map 1: expected a function of (element), got nothing()"),
        (lambda: nums.map(keyword), "map 1: expected a function of (element), got keyword(a, *, b)"),
        (lambda: nums.filter(None), "filter 1: expected a function of (element), got a NoneType"),
        (lambda: nums.map_values(pair), "map_values 1: expected a function of (value), got pair(a, b)"),
        (lambda: nums.map_batch(pair), "map_batch 1: expected a function of (list of elements), got pair(a, b)"),
        (
            lambda: nums.map_batch(list).map(str).map_batch(list),
            (
                "map_batch 3: it gets the lists in which elements arrive, so it cannot stand behind 'map 2: str'; "
                "write it first, or write .shuffle() before .map_batch"
            ),
        ),
        (
            red.uniq,
            (
                "uniq 3: what uniq gets behind 'reduce 2: count' is not clear; "
                'write .emit("state"), .emit("events") or .on_trigger(fn) before .uniq'
            ),
        ),
        (
            lambda: red.emit("state").uniq(),
            "uniq 4: it cannot stand behind 'emit 3'; write .shuffle() or .partition() before .uniq",
        ),
        (
            lambda: red.emit("state").map_batch(list),
            ("map_batch 4: it cannot stand behind 'emit 3'; write .shuffle() or .partition() before .map_batch"),
        ),
        (
            lambda: nums.count_by().emit_and_reduce(dict, count),
            (
                "emit_and_reduce 2: these stages have the reduction 'count_by 1'; "
                "write .partition() or .shuffle() before .emit_and_reduce"
            ),
        ),
        (
            red.count_by,
            (
                "count_by 3: these stages have the reduction 'reduce 2: count'; "
                "write .partition() or .shuffle() before .count_by"
            ),
        ),
        (lambda: red.emit("state").emit("events"), "emit 4: 'emit 3' says what the windows emit; keep one of the two"),
        (
            lambda: red.emit("state").on_trigger(lambda acc: ([], acc)),
            "on_trigger 4: 'emit 3' says what the windows emit; keep one of the two",
        ),
        (
            lambda: red.on_trigger(lambda acc: ([], acc)).emit("state"),
            "emit 4: 'on_trigger 3: <lambda>' says what the windows emit; keep one of the two",
        ),
        (
            lambda: red.on_trigger(3),
            (
                "on_trigger 3: expected a function of (state) or (state, partition) or (state, partition, firing), "
                "got an int"
            ),
        ),
        (
            lambda: red.on_trigger(nothing),
            (
                "on_trigger 3: expected a function of (state) or (state, partition) or (state, partition, firing), "
                "got nothing()"
            ),
        ),
        (
            lambda: red.on_trigger(four),
            (
                "on_trigger 3: expected a function of (state) or (state, partition) or (state, partition, firing), "
                "got four(a, b, c, d)"
            ),
        ),
        (
            lambda: red.on_trigger(keyword),
            (
                "on_trigger 3: expected a function of (state) or (state, partition) or (state, partition, firing), "
                "got keyword(a, *, b)"
            ),
        ),
        (
            lambda: nums.reduce({}, count),
            (
                "reduce 1, init: expected a function without arguments that returns a new accumulator, got {}; "
                "write dict"
            ),
        ),
        (
            lambda: nums.reduce([], count),
            (
                "reduce 1, init: expected a function without arguments that returns a new accumulator, got []; "
                "write list"
            ),
        ),
        (
            lambda: nums.reduce(0, count),
            (
                "reduce 1, init: expected a function without arguments that returns a new accumulator, got 0; "
                "write lambda: 0"
            ),
        ),
        (
            lambda: nums.reduce({"a": 1}, count),
            (
                "reduce 1, init: expected a function without arguments that returns a new accumulator, got {'a': 1}; "
                "write lambda: {'a': 1}"
            ),
        ),
        (
            lambda: nums.reduce(one, count),
            ("reduce 1, init: expected a function without arguments that returns a new accumulator, got one(a)"),
        ),
        (
            lambda: nums.reduce(slow, count),
            ("reduce 1, init: expected a function without arguments that returns a new accumulator, got slow(element)"),
        ),
        (
            lambda: nums.reduce(dict, lambda acc: acc),
            "reduce 1: expected a function of (accumulator, element), got <lambda>(acc)",
        ),
        (lambda: nums.reduce(dict, "x"), "reduce 1: expected a function of (accumulator, element), got a str"),
        (
            lambda: nums.reduce(dict, count, combine=len),
            "reduce 1, combine: expected a function of (accumulator, accumulator), got len(obj, /)",
        ),
        (
            lambda: nums.reduce_by(slow, dict, count),
            (
                "reduce_by 1, key: expected a plain function, got async def slow; "
                "write .map(fn) before it, where fn may be async"
            ),
        ),
        (
            lambda: nums.reduce_by("country", dict, count),
            ("reduce_by 1, key: expected a function of (element), got a str; write operator.itemgetter('country')"),
        ),
        (
            lambda: nums.sum_by(None, 3),
            ("sum_by 1, value: expected a function of (element), got an int; write operator.itemgetter(3)"),
        ),
        (lambda: nums.group_by(None), "group_by 1, key: expected a function of (element), got a NoneType"),
        (
            lambda: nums.partition(key=0),
            ("partition 1, key: expected a function of (element), got an int; write operator.itemgetter(0)"),
        ),
        (lambda: nums.partition(key=pair), "partition 1, key: expected a function of (element), got pair(a, b)"),
        (
            lambda: nums.partition(key=slow),
            (
                "partition 1, key: expected a plain function, got async def slow; "
                "write .map(fn) before it, where fn may be async"
            ),
        ),
        (
            lambda: nums.partition(key=later),
            (
                "partition 1, key: expected a plain function, got async def later; "
                "write .map(fn) before it, where fn may be async"
            ),
        ),
        (
            lambda: nums.partition(key=AsyncCallable()),
            (
                "partition 1, key: expected a plain function, got async def AsyncCallable; "
                "write .map(fn) before it, where fn may be async"
            ),
        ),
        (
            lambda: nums.partition(hash=slow),
            (
                "partition 1, hash: expected a plain function, got async def slow; "
                "write .map(fn) before it, where fn may be async"
            ),
        ),
        (
            lambda: nums.partition(hash=3),
            ("partition 1, hash: expected a function of (element), got an int; write operator.itemgetter(3)"),
        ),
        (
            lambda: nums.partition(stages=0),
            (
                "partition 1: stages must be a whole number of 1 or more, got 0; "
                "leave it out for one stage for each processor"
            ),
        ),
        (
            lambda: nums.partition(stages=True),
            (
                "partition 1: stages must be a whole number of 1 or more, got True; "
                "leave it out for one stage for each processor"
            ),
        ),
        (
            lambda: nums.shuffle(stages="2"),
            (
                "shuffle 1: stages must be a whole number of 1 or more, got '2'; "
                "leave it out for one stage for each processor"
            ),
        ),
        (
            lambda: nums.partition(on_init=one),
            ("partition 1, on_init: expected a function of (index, number of stages), got one(a)"),
        ),
        (
            lambda: nums.partition(window=Window.session(1, by=by)),
            "partition 1: a session belongs to a key; write key=, a function of an element",
        ),
        (
            lambda: nums.shuffle(window=Window.session(1, by=by)),
            "shuffle 1: a session belongs to a key; write .partition(key=…, window=…)",
        ),
        (
            lambda: nums.partition(window=Window.count(3)).map(str).partition(),
            (
                "partition 1: nothing is collected in its count window; "
                "write .reduce(init, fn), or another reduction, behind it, or leave the window out"
            ),
        ),
        (
            lambda: nums.partition(window=Window.global_().trigger_every(3)).partition(),
            (
                "partition 1: nothing is collected in its global window; "
                "write .reduce(init, fn), or another reduction, behind it, or leave the window out"
            ),
        ),
        (
            lambda: nums.partition(window=fixed).shuffle(),
            (
                "partition 1: nothing is collected in its fixed window; "
                "write .reduce(init, fn), or another reduction, behind it, or leave the window out"
            ),
        ),
        (
            lambda: nums.on_late(pair),
            (
                "on_late 1: these stages have a global window, in which nothing is late; "
                "write .partition(window=Window.fixed(…)), or another window of event time, before .on_late"
            ),
        ),
        (
            lambda: nums.partition(window=Window.count(2)).on_late(pair),
            (
                "on_late 2: these stages have a count window, in which nothing is late; "
                "write .partition(window=Window.fixed(…)), or another window of event time, before .on_late"
            ),
        ),
        (
            lambda: nums.partition(window=fixed).on_late(pair).on_late(pair),
            "on_late 3: these stages have .on_late(fn); keep one of the two",
        ),
        (
            lambda: nums.partition(window=fixed).on_late(len),
            "on_late 2: expected a function of (element, info), got len(obj, /)",
        ),
        (
            lambda: Flow.from_iterable(nums),
            "from_iterable: expected an iterable, got a Flow; go on with that flow itself",
        ),
        (lambda: Flow.from_iterable(3), "from_iterable: expected an iterable or async iterable, got an int"),
        (
            lambda: Flow.from_iterable(nothing),
            "from_iterable: expected an iterable or async iterable, got a function; write nothing()",
        ),
        (
            lambda: Flow.from_iterable(lambda: [1]),
            "from_iterable: expected an iterable or async iterable, got a function",
        ),
        (
            lambda: nums.partition(window=Window.fixed(1, by=untyped)),
            "partition 1, window: expected a function of (element), got nothing()",
        ),
        (
            lambda: Flow.window_join("inner", nums, nums, Window.fixed(1, by=slow), by, by, pair),
            (
                "window_join 1, window: expected a plain function, got async def slow; "
                "write .map(fn) before it, where fn may be async"
            ),
        ),
        (
            lambda: nums.partition(window=everything.trigger(nothing, one)),
            "partition 1, trigger: expected a function of (events, state), got one(a)",
        ),
        (
            lambda: nums.partition(window=everything.trigger(one, pair)),
            (
                "partition 1, trigger, init: expected a function without arguments that returns a new accumulator, "
                "got one(a)"
            ),
        ),
        (
            lambda: nums.partition(window=everything.trigger(nothing, slow_pair)),
            ("partition 1, trigger: expected a plain function, got async def slow_pair; nothing can be awaited there"),
        ),
        (lambda: Flow.from_iterables([]), "from_iterables: expected at least one iterable, got none"),
        (lambda: Flow.from_iterables(3), "from_iterables: expected a list of iterables, got an int"),
        (
            lambda: Flow.from_iterables([[], 3]),
            "from_iterables, source 1: expected an iterable or async iterable, got an int",
        ),
        (
            lambda: Flow.from_iterables([[], nums]),
            "from_iterables: expected iterables, got a Flow; write Flow.merge(…) for several flows",
        ),
        (
            lambda: Flow.from_iterables(nums),
            "from_iterables: expected iterables, got a Flow; write Flow.merge(…) for several flows",
        ),
        (lambda: Flow.from_stages([]), "from_stages: expected at least one stage, got none"),
        (lambda: Flow.from_stages([3]), "from_stages: expected stages that emit events, got an int"),
        (lambda: Flow.from_stages(3), "from_stages: expected a list of stages, got an int"),
        (lambda: nums.through_stages([]), "through_stages 1: expected at least one stage, got none"),
        (lambda: nums.through_stages([3]), "through_stages 1: expected stages that emit events, got an int"),
        (Flow.merge, "merge: expected at least one flow, got none"),
        (lambda: Flow.merge(3), "merge: expected a Flow, got an int; write Flow.from_iterable(…)"),
        (
            lambda: Flow.merge(nums.using("threads"), nums.using("tasks")),
            "merge: the flows say different things with .using(…); write it once, behind merge",
        ),
        (
            lambda: Flow.bounded_join("inner", nums, 3, str, str, pair),
            "bounded_join: expected a Flow, got an int; write Flow.from_iterable(…)",
        ),
        (
            lambda: Flow.bounded_join("inner", nums, nums, 3, str, pair),
            ("bounded_join, left_key: expected a function of (element), got an int; write operator.itemgetter(3)"),
        ),
        (
            lambda: Flow.bounded_join("inner", nums, nums, by, pair, pair),
            "bounded_join, right_key: expected a function of (element), got pair(a, b)",
        ),
        (
            lambda: Flow.bounded_join("inner", nums, nums, by, by, by),
            "bounded_join, join: expected a function of (left, right), got by(element)",
        ),
        (
            lambda: Flow.bounded_join("inner", nums, nums, by, by, pair).map_batch(list),
            (
                "map_batch 2: it gets the lists in which elements arrive, so it cannot stand behind 'bounded_join 1'; "
                "write it first, or write .shuffle() before .map_batch"
            ),
        ),
        (
            lambda: nums.departition(list, pair, len),
            (
                "departition 1: these stages have no reduction, so their windows emit nothing; "
                "write .reduce(init, fn), or another reduction, before .departition"
            ),
        ),
        (
            lambda: red.departition([], pair, len),
            (
                "departition 3, init: expected a function without arguments that returns a new accumulator, got []; "
                "write list"
            ),
        ),
        (
            lambda: red.departition(list, len, len),
            "departition 3, merge: expected a function of (merged, emitted), got len(obj, /)",
        ),
        (
            lambda: red.departition(list, pair, slow),
            (
                "departition 3, done: expected a plain function, got async def slow; "
                "write .map(fn) behind it, where fn may be async"
            ),
        ),
        (
            lambda: red.departition(list, pair, three),
            ("departition 3, done: expected a function of (merged) or (merged, firing), got three(a, b, c)"),
        ),
        (
            lambda: nums.emit_and_reduce(list, pair).departition(list, pair, len),
            (
                "departition 2: what 'emit_and_reduce 1: pair' emits at once belongs to no window; "
                "write .reduce(init, fn) in its place"
            ),
        ),
        (
            lambda: nums.take_sort(3),
            (
                "take_sort 1: these stages have no reduction, so their windows emit nothing; "
                "write .reduce(init, fn), or another reduction, before .take_sort"
            ),
        ),
        (lambda: red.take_sort(3, key=pair), "take_sort 3, key: expected a function of (element), got pair(a, b)"),
        (
            lambda: red.take_sort(3, reverse=True).map_batch(list),
            (
                "map_batch 4: it gets the lists in which elements arrive, so it cannot stand behind 'take_sort 3'; "
                "write it first, or write .shuffle() before .map_batch"
            ),
        ),
        (
            lambda: red.departition(list, pair, len).map_batch(list),
            (
                "map_batch 4: it gets the lists in which elements arrive, so it cannot stand behind 'departition 3'; "
                "write it first, or write .shuffle() before .map_batch"
            ),
        ),
        (lambda: Flow.from_files([]), "from_files: expected at least one path, got none"),
    ],
)
def test_a_chain_that_cannot_work_is_refused_when_it_is_built(make: Callable[[], object], sentence: str) -> None:
    assert refused(make, DefinitionError) == sentence


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: red.emit("stat"), "emit: expected 'events', 'state' or 'nothing', got 'stat'; did you mean 'state'?"),
        (
            lambda: nums.partition(stges=2),
            (
                "partition.stges: unknown option; "
                "known here: stages, max_demand, min_demand, on_init, window, key, hash; "
                "did you mean 'stages'?"
            ),
        ),
        (lambda: nums.partition(max_demand=0), "partition.max_demand: expected a whole number of 1 or more, got 0"),
        (
            lambda: nums.partition(max_demand=10, min_demand=10),
            ("partition.min_demand: expected a whole number of 0 or more, less than max_demand (10), got 10"),
        ),
        (
            lambda: nums.partition(min_demand=-1),
            ("partition.min_demand: expected a whole number of 0 or more, less than max_demand (1000), got -1"),
        ),
        (
            lambda: nums.partition(min_demand=True),
            "partition.min_demand: expected a whole number of 0 or more, less than max_demand (1000), got True",
        ),
        (lambda: nums.partition(window=10), "partition.window: expected a window such as Window.count(10), got an int"),
        (
            lambda: nums.partition(window=Window.fixed(1, by=by, hold_timeout=3)),
            (
                "partition.window.hold_timeout: only an aggregator has this setting: in a flow, "
                "no message holds the watermark back"
            ),
        ),
        (
            lambda: Flow.from_iterable([], satges=3),
            (
                "from_iterable.satges: unknown option; "
                "known here: stages, max_demand, min_demand, on_init, window; "
                "did you mean 'stages'?"
            ),
        ),
        (
            lambda: Flow.bounded_join("iner", nums, nums, str, str, pair),
            (
                "bounded_join.mode: expected 'inner', 'left_outer', 'right_outer' or 'full_outer', "
                "got 'iner'; "
                "did you mean 'inner'?"
            ),
        ),
        (
            lambda: Flow.bounded_join("inner", nums, nums, by, by, pair, window=fixed),
            "bounded_join.window: unknown option; known here: stages, max_demand, min_demand, on_init",
        ),
        (
            lambda: Flow.window_join("inner", nums, nums, 3, by, by, pair),
            "window_join.window: expected a window such as Window.count(10), got an int",
        ),
        (
            lambda: red.departition(list, pair, len, stages=2),
            "departition.stages: unknown option; known here: max_demand, min_demand, window, on_init",
        ),
        (lambda: red.take_sort(0), "take_sort.n: expected a whole number of 1 or more, got 0"),
        (
            lambda: nums.using("task"),
            "using.runner: expected 'tasks', 'threads', 'processes' or 'ray', got 'task'; did you mean 'tasks'?",
        ),
        (lambda: nums.using("threads", workers=0), "using.workers: expected a whole number of 1 or more, got 0"),
        (lambda: nums.using(on_error="ignore"), "using.on_error: expected 'raise', 'skip' or 'collect', got 'ignore'"),
        (
            lambda: nums.using(worker=3),
            ("using.worker: unknown option; known here: workers, on_error, progress; did you mean 'workers'?"),
        ),
        (
            lambda: nums.using("tasks", address="auto"),
            "using.address: unknown option; known here: workers, on_error, progress",
        ),
        (
            lambda: nums.using("ray", adress="auto"),
            (
                "using.adress: unknown option; known here: workers, on_error, progress, address, resources, "
                "runtime_env, start_timeout; did you mean 'address'?"
            ),
        ),
        (
            lambda: nums.using("ray", address=""),
            "using.address: expected \"auto\", or the host and port of a cluster, got ''",
        ),
        (
            lambda: nums.using("ray", resources=["GPU"]),
            "using.resources: expected names with numbers, such as {\"GPU\": 1}, got ['GPU']",
        ),
        (
            lambda: nums.using("ray", resources={1: 1}),
            "using.resources: expected a text as the name of a resource, got 1",
        ),
        (
            lambda: nums.using("ray", resources={"CPU": 2}),
            "using.resources.CPU: each worker has one CPU; workers= says how many there are",
        ),
        (
            lambda: nums.using("ray", resources={"GPU": 0}),
            "using.resources.GPU: expected a number above 0, got 0",
        ),
        (
            lambda: nums.using("ray", runtime_env="here"),
            "using.runtime_env: expected a runtime environment of Ray, as a dict, got 'here'",
        ),
        (
            lambda: nums.using("ray", runtime_env={"config": {"setup_timeout_seconds": 5}}),
            "using.runtime_env.config.setup_timeout_seconds: leave it out; start_timeout= says it",
        ),
        (
            lambda: nums.using("ray", start_timeout=0),
            "using.start_timeout: expected a number of seconds above 0, got 0",
        ),
        (
            lambda: nums.using("ray", start_timeout=True),
            "using.start_timeout: expected a number of seconds above 0, got True",
        ),
        (
            lambda: nums.partition(hsah=by),
            (
                "partition.hsah: unknown option; "
                "known here: stages, max_demand, min_demand, on_init, window, key, hash; "
                "did you mean 'hash'?"
            ),
        ),
        (lambda: Flow.merge(nums, to_all="no"), "merge.to_all: expected True or False, got 'no'"),
        (lambda: red.take_sort(1, reverse=-1), "take_sort.reverse: expected True or False, got -1"),
        (lambda: Flow.from_files(3), "from_files.paths: expected a path or a list of paths, got an int"),
        (lambda: Flow.from_files(b"texts"), "from_files.paths: expected a path or a list of paths, got a bytes"),
        (
            lambda: Flow.from_files(io.StringIO("one\ntwo\n")),
            ("from_files.paths: expected a path or a list of paths, got a StringIO; write Flow.from_iterable(file)"),
        ),
        (
            lambda: Flow.from_files("pyproject.toml", encoding="utf8x"),
            "from_files.encoding: expected the name of a text encoding such as 'utf-8', got 'utf8x'",
        ),
        (
            lambda: Flow.from_files("pyproject.toml", encoding="hex"),
            "from_files.encoding: expected the name of a text encoding such as 'utf-8', got 'hex'",
        ),
        (
            lambda: Flow.from_files("pyproject.toml", range_bytes=0),
            "from_files.range_bytes: expected a whole number of 1 or more, got 0",
        ),
    ],
)
def test_a_wrong_option_is_refused_with_its_path(make: Callable[[], object], sentence: str) -> None:
    assert refused(make, OptionsError) == sentence


def test_a_path_is_refused_if_there_is_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "there.md").touch()

    def sentence(name: str) -> str:
        return refused(lambda: Flow.from_files(["there.md", Path(name)]), OptionsError)

    assert sentence("none.txt") == "from_files.paths: there is no file 'none.txt'"
    assert sentence("long" * 30) == f"from_files.paths: there is no file '{'long' * 30}'"
    assert sentence("*.txt") == "from_files.paths: no file matches '*.txt'"
    assert sentence("x*") == "from_files.paths: no file matches 'x*'"
    assert sentence("texts") == "from_files.paths: 'texts' is a directory; write 'texts/*'"


def doubled(numbers: Any) -> Any:
    for number in numbers:
        yield 2 * number


def test_flows_that_would_take_elements_from_each_other_are_refused() -> None:
    generated = Flow.from_iterable(doubled([1, 2]))
    sentence = (
        "merge: these flows have the same source, a generator, which gives each element once, so it would reach one "
        "of them only; write Flow.from_iterable(list(…))"
    )

    assert refused(lambda: Flow.merge(generated.filter(by), generated.reject(by)), DefinitionError) == sentence
    assert refused(lambda: Flow.merge(nums, generated.shuffle(), generated), DefinitionError) == sentence
    assert refused(
        lambda: Flow.bounded_join("inner", generated.map(str), generated, by, by, pair), DefinitionError
    ) == sentence.replace("merge: ", "bounded_join 2: ")
    awaited = Flow.from_iterable(later(1))
    assert refused(lambda: Flow.merge(awaited, awaited), DefinitionError) == sentence.replace(
        "a generator", "an async_generator"
    )


async def test_a_source_that_running_stages_are_fed_from_is_not_shared() -> None:
    fed = Flow.from_iterable(doubled([1, 2])).through_stages([Passed()])

    assert refused(lambda: Flow.merge(fed, fed.map(by)), DefinitionError).startswith(
        "merge: these flows have the same source, a generator, "
    )


@pytest.mark.parametrize("window", [Window.count(3), Window.periodic(1), fixed])
def test_a_window_may_be_there_for_what_is_not_repeated_and_for_what_is_late(window: Window) -> None:
    assert nums.partition(window=window).uniq().shuffle()._layer.label == "shuffle 3"
    if window is fixed:
        assert nums.partition(window=window).map(by).shuffle()._layer.label == "shuffle 3"


def test_flows_may_have_the_same_source_if_it_begins_anew() -> None:
    assert len(Flow.merge(nums.filter(by), nums.reject(by))._layer.inputs) == 2
    assert len(Flow.from_iterables([iter([1]), iter([2])])._layer.inputs) == 2


@pytest.mark.parametrize(
    "fn",
    [int, str.upper, operator.itemgetter(0), Callable1(), slow, with_default, lambda *all_: all_],
)
def test_whatever_can_be_called_with_an_element_is_taken(fn: Any) -> None:
    assert nums.map(fn)._layer.mappers[0].fn is fn


@pytest.mark.parametrize(
    "add",
    [
        lambda flow: flow.shuffle(stages=2).map(one),
        lambda flow: flow.partition(window=fixed).reduce(list, pair).emit("events"),
        lambda flow: flow.shuffle().reduce(int, pair, combine=pair).emit("state"),
        lambda flow: Flow.merge(flow, nums),
        lambda flow: flow.through_stages([Passed()]),
    ],
    ids=["mappers", "windows", "combined", "merged", "running stages"],
)
async def test_a_flow_with_more_layers_than_can_be_planned_is_refused(add: Any) -> None:
    longest = nums
    for _ in range(249):
        longest = add(longest)
    name = add(nums)._layer.label.partition(" ")[0]

    assert "the result" in longest.explain()
    assert refused(lambda: add(longest), DefinitionError).partition(" it would")[2] == (
        " be layer 251 of this flow, which may have 250, one behind the other; "
        "write what needs no stages of its own as an operator of the layer before"
    )
    assert refused(lambda: add(longest), DefinitionError).startswith(name)
