"""Random layers do what the same chain does if it is written with lists and loops, however lists are cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py._core.window.shape import Count, Fixed
from broadway_py._core.window.spec import Window
from broadway_py.flow.description.operators import Emission, KeyedReduction, Operator, OperatorKind, Reduction
from broadway_py.flow.operator_errors import OperatorError
from broadway_py.flow.work.work import Work
from tests.flow.works import chain, layer, run

# --- the same chain with lists and loops ------------------------------------------------------------------------------


def expanded(value: Any, operators: Sequence[Operator], seen: list[set[Any]]) -> Iterator[Any]:
    """Yields what *operators* make of an element."""
    if not operators:
        yield value
        return
    operator, *others = operators
    fn: Callable[..., Any] = operator.fn or (lambda each: each)
    match operator.kind:
        case "map":
            yield from expanded(fn(value), others, seen)
        case "filter" | "reject":
            if bool(fn(value)) == (operator.kind == "filter"):
                yield from expanded(value, others, seen)
        case "flat_map":
            for each in fn(value):
                yield from expanded(each, others, seen)
        case _:
            own, key = seen[operator.number], fn(value)
            if key not in own:
                own.add(key)
                yield from expanded(value, others, seen)


@dataclass(eq=False)
class Pane:
    reduction: Any
    start: float = 0.0
    end: float = math.inf
    state: Any = None
    count: int = 0
    seen: list[set[Any]] = field(default_factory=lambda: [set() for _ in range(20)])

    def __post_init__(self) -> None:
        self.state = {} if isinstance(self.reduction, KeyedReduction) else self.reduction and self.reduction.init()

    def add(self, element: Any, operators: Sequence[Operator], out: list[Any]) -> None:
        before = [set(each) for each in self.seen]
        try:
            values = list(expanded(element, operators, self.seen))
        except ZeroDivisionError:
            self.seen = before
            return
        for value in values:
            self.reduce(value, out)

    def reduce(self, value: Any, out: list[Any]) -> None:
        if self.reduction is None:
            out.append(value)
        elif isinstance(self.reduction, KeyedReduction):
            key = self.reduction.key(value) if self.reduction.key else value
            found = self.state[key] if key in self.state else self.reduction.init()
            self.state[key] = self.reduction.fn(found, value)
        elif self.reduction.emits:
            emitted, self.state = self.reduction.fn(self.state, value)
            out.extend(emitted)
        else:
            self.state = self.reduction.fn(self.state, value)

    def fire(self, emission: Any, out: list[Any]) -> None:
        if self.reduction is None:
            return
        if emission is not None and emission.fn is not None:
            emitted, self.state = emission.fn(self.state)
            out.extend(emitted)
        elif emission is None or emission.emitted == "events":
            out.extend(self.state.items() if isinstance(self.state, dict) else self.state)
        elif emission.emitted == "state":
            out.append(self.state.copy())


class Model:
    """A stage without event time: one window is open at a time."""

    def __init__(self, window: Window, operators: Sequence[Operator], reduction: Any, emission: Any) -> None:
        self.window = window
        self.operators, self.reduction, self.emission = operators, reduction, emission
        self.out: list[Any] = []
        self.late = 0
        self.panes: list[Pane] = []
        self.open_first()

    def open_first(self) -> None:
        self.panes = [Pane(self.reduction)]

    def run(self, elements: Sequence[int]) -> tuple[list[Any], int]:
        for element in elements:
            panes = self.panes_of(element)
            self.add(element, panes)
            for pane in panes:
                pane.count += 1
                if self.window.triggers.every is not None and pane.count % self.window.triggers.every == 0:
                    pane.fire(self.emission, self.out)
            self.close(element)
        for pane in sorted(self.panes, key=lambda pane: pane.end):
            pane.fire(self.emission, self.out)
        return self.out, self.late

    def panes_of(self, element: int) -> list[Pane]:
        return self.panes

    def add(self, element: int, panes: list[Pane]) -> None:
        panes[0].add(element, self.operators, self.out)

    def close(self, element: int) -> None:
        if isinstance(self.window.shape, Count) and self.panes[0].count == self.window.shape.n:
            self.panes[0].fire(self.emission, self.out)
            self.open_first()


class TimedModel(Model):
    """A stage with windows of event time: of an element, the time is the element itself."""

    newest = -math.inf

    def open_first(self) -> None:
        self.panes = []

    @property
    def line(self) -> float:
        return self.newest - cast("float", self.window.delay)

    def panes_of(self, element: int) -> list[Pane]:
        shape = cast("Fixed", self.window.shape)
        first = element // shape.every * shape.every
        found = []
        for start in (first - shape.every, first):
            if start <= element < start + shape.size and start + shape.size > self.line:
                pane = next((pane for pane in self.panes if pane.start == start), None)
                if pane is None:
                    pane = Pane(self.reduction, start, start + shape.size)
                    self.panes.append(pane)
                found.append(pane)
        self.late += not found
        return found

    def add(self, element: int, panes: list[Pane]) -> None:
        # A mapper is called once for an element, whatever the number of its windows; a uniq is a matter of a window.
        shared = next((place for place, each in enumerate(self.operators) if each.kind == "uniq"), len(self.operators))
        if self.window.kind != "sliding":
            shared = 0
        try:
            mapped = list(expanded(element, self.operators[:shared], []))
        except ZeroDivisionError:
            return
        keeps_nothing = self.reduction is None and not any(each.kind == "uniq" for each in self.operators)
        for value in mapped if panes else ():
            for pane in panes[:1] if keeps_nothing else panes:
                pane.add(value, self.operators[shared:], self.out)

    def close(self, element: int) -> None:
        self.newest = max(self.newest, element)
        for pane in sorted(self.panes, key=lambda pane: pane.end):
            if pane.end <= self.line:
                pane.fire(self.emission, self.out)
                self.panes.remove(pane)


# --- random layers ----------------------------------------------------------------------------------------------------


def plus_one(number: int) -> int:
    return number + 1


def fails_at_multiples(number: int) -> int:
    return number + 6 // (number % 7)


def is_odd(number: int) -> bool:
    return number % 2 == 1


def two(number: int) -> list[int]:
    return [number, number * 2]


def some(number: int) -> Iterator[int]:
    return iter(range(number % 3))


def parity(number: int) -> int:
    return number % 3


def collect(kept: list[int], number: int) -> list[int]:
    return [*kept, number]


def running(total: list[int], number: int) -> tuple[list[Any], list[int]]:
    total = [sum(total) + number]
    return [("at once", *total)], total


def reset(state: Any) -> tuple[list[Any], Any]:
    return [("sum", repr(state))], type(state)()


def later(fn: Callable[..., Any] | None) -> Any:
    """Returns the same function as ``async def``."""
    if fn is None:
        return None

    async def called(*arguments: Any) -> Any:
        return fn(*arguments)

    return called


STEPS: list[tuple[OperatorKind, Any]] = [
    ("map", plus_one),
    ("map", fails_at_multiples),
    ("filter", is_odd),
    ("reject", is_odd),
    ("flat_map", two),
    ("flat_map", some),
    ("uniq", None),
    ("uniq", parity),
]
REDUCTIONS: list[Any] = [
    None,
    Reduction("reduce", list, collect, 9),
    Reduction("emit_and_reduce", list, running, 9, emits=True),
    KeyedReduction("reduce_by", parity, list, collect, 9),
    KeyedReduction("count_by", None, int, lambda count, _: count + 1, 9),
    KeyedReduction("count_by", parity, int, lambda count, _: count + 1, 9),
]
EMISSIONS = [None, Emission(10, "events"), Emission(10, "state"), Emission(10, "nothing"), Emission(10, None, reset)]
WINDOWS = st.one_of(
    st.just(Window.global_()),
    st.builds(Window.count, st.integers(1, 6)),
    st.builds(lambda size, delay: Window.fixed(size, by=float, delay=delay), st.integers(1, 9), st.integers(0, 9)),
    st.builds(lambda delay: Window.sliding(8, 4, by=float, delay=delay), st.integers(0, 9)),
)
TRIGGERS = st.one_of(st.none(), st.integers(1, 5))


@st.composite
def layers(draw: st.DrawFn) -> tuple[Any, Model]:
    """Returns a layer, and the model of it. The functions of the layer are plain or async."""
    window, every = draw(WINDOWS), draw(TRIGGERS)
    window = (window if every is None else window.trigger_every(every)).in_flow()
    steps = draw(st.lists(st.sampled_from(STEPS), max_size=5))
    reduction = draw(st.sampled_from(REDUCTIONS))
    emission = None if reduction is None else draw(st.sampled_from(EMISSIONS))
    model = (TimedModel if window.by else Model)(window, chain(*steps), reduction, emission)
    if draw(st.booleans()):
        steps = [(kind, later(fn)) for kind, fn in steps]
    return layer(window=window, mappers=chain(*steps), reduction=reduction, emission=emission), model


@settings(max_examples=60, deadline=None)
@given(
    described=layers(),
    elements=st.lists(st.integers(0, 40), max_size=30),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_a_stage_does_what_lists_and_loops_do(
    described: tuple[Any, Model], elements: list[int], sizes: list[int]
) -> None:
    stage, model = described
    work = Work(stage, on_error="skip")
    assert (run(work, elements, sizes), work.late) == model.run(elements)


@settings(max_examples=30, deadline=None)
@given(
    described=layers(),
    elements=st.lists(st.integers(0, 40), max_size=30),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_an_error_ends_the_flow_at_the_same_element_however_lists_are_cut(
    described: tuple[Any, Model], elements: list[int], sizes: list[int]
) -> None:
    stage, _ = described

    def outcome(sizes: list[int]) -> Any:
        try:
            return run(Work(stage), elements, sizes)
        except OperatorError as error:
            return error.failed.operator, error.failed.element

    cut, one_by_one = outcome(sizes), outcome([1])
    # Here the whole list is mapped before the rest is done with it. So of two errors in one list, that of the mapping
    # is the first.
    reduction = stage.reduction
    maps_first = stage.window.kind in {"session", "sliding"} or (
        isinstance(reduction, KeyedReduction) and reduction.kind == "count_by" and reduction.key is None
    )
    if maps_first and isinstance(one_by_one, tuple):
        assert isinstance(cut, tuple)
    else:
        assert cut == one_by_one
