"""What each method of a flow makes of a layer: the same layer with one more operator, or a layer behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypedDict

from broadway_py._core.window.shape import Session
from broadway_py._core.window.spec import UNSET, Window
from broadway_py.errors import DefinitionError
from broadway_py.flow.description import checks
from broadway_py.flow.description.layers import (
    ByKey,
    FromIterable,
    FromStage,
    Gather,
    Layer,
    Route,
    Source,
    Spread,
)
from broadway_py.flow.description.operators import Departition, Emission, KeyedReduction, Operator, Reduction
from broadway_py.foreign import article

__all__ = [
    "GatherOptions",
    "LayerOptions",
    "StageOptions",
    "complete",
    "gathered",
    "new_layer",
    "with_emission",
    "with_keyed_reduction",
    "with_on_late",
    "with_operator",
    "with_reduction",
]

#: Whoever goes from the end of a flow to its sources needs up to three calls inside of each other for each layer, and
#: Python allows 1,000.
_MOST_LAYERS: Final = 250

#: What methods take besides the options of a layer.
_NAMED: Final = {
    "from_files": ("encoding", "range_bytes"),
    "merge": ("to_all",),
    "partition": ("key", "hash"),
    "take_sort": ("key", "reverse"),
}


class GatherOptions(TypedDict, total=False):
    """The options of one stage behind many."""

    #: The most elements that a stage has asked each stage before it for. Default: 1,000; with worker
    #: processes 20,000.
    max_demand: int
    #: A stage asks again when so many or fewer are outstanding. Default: half of *max_demand*; with worker
    #: processes, if neither is given, 15,000.
    min_demand: int | None
    #: The windows of the operators that follow. Default: one window until the end.
    window: Window
    #: Called with (index, number of stages) when a stage starts.
    on_init: Callable[[int, int], Any] | None


class StageOptions(TypedDict, total=False):
    """The options of stages whose window is given otherwise."""

    #: How many there are. Default: one for each processor that this process may use.
    stages: int | None
    #: The most elements that a stage has asked each stage before it for. Default: 1,000; with worker
    #: processes 20,000.
    max_demand: int
    #: A stage asks again when so many or fewer are outstanding. Default: half of *max_demand*; with worker
    #: processes, if neither is given, 15,000.
    min_demand: int | None
    #: Called with (index, number of stages) when a stage starts.
    on_init: Callable[[int, int], Any] | None


class LayerOptions(StageOptions, total=False):
    """The options of sources, ``partition``, ``shuffle`` and ``merge``."""

    #: The windows in which these stages reduce. Default: one window until the end.
    window: Window


def new_layer(
    where: str,
    inputs: tuple[Source, ...] | tuple[Layer, ...],
    route: Route,
    options: Mapping[str, Any],
    *,
    known: type[Any] = LayerOptions,
) -> Layer:
    """Returns the layer that the method *where*, such as ``partition 2``, begins with these *options*.

    Raises:
        OptionsError: an option is unknown, or has a wrong value.
        DefinitionError: the number of stages is wrong, or a function cannot be called, or the layer before is not
            complete, or there are too many layers.
    """
    name = where.partition(" ")[0]
    checks.known(name, options, (*known.__annotations__, *_NAMED.get(name, ())))
    on_init = options.get("on_init")
    if on_init is not None:
        checks.plain_function(f"{where}, on_init", on_init, "index", "number of stages")
    for each in inputs:
        if isinstance(each, Layer):
            complete(each)
    layer = Layer(
        inputs,
        route,
        stages=checks.stages(where, options.get("stages")),
        demand=checks.demand(name, options.get("max_demand", UNSET), options.get("min_demand")),
        window=checks.window(where, options.get("window", Window.global_())),
        on_init=on_init,
        label=where,
    )
    if layer.depth > _MOST_LAYERS:
        raise DefinitionError(
            f"{where}: it would be layer {layer.depth} of this flow, which may have {_MOST_LAYERS}, "
            "one behind the other; write what needs no stages of its own as an operator of the layer before"
        )
    _check_shared_iterators(where, inputs)
    if isinstance(layer.window.shape, Session) and getattr(route, "key", None) is None:
        instead = "key=, a function of an element" if isinstance(route, ByKey) else ".partition(key=…, window=…)"
        raise DefinitionError(f"{where}: a session belongs to a key; write {instead}")
    return layer


def _check_shared_iterators(where: str, inputs: tuple[Source, ...] | tuple[Layer, ...]) -> None:
    """Refuse flows that would take elements from the same iterator, because it gives each element once."""
    found: set[int] = set()
    for each in inputs:
        iterators = {id(items): items for items in _iterators(each)}
        for items in (iterators[same] for same in found & iterators.keys()):
            raise DefinitionError(
                f"{where}: these flows have the same source, {article(items)}, which gives each element once, so it "
                "would reach one of them only; write Flow.from_iterable(list(…))"
            )
        found |= iterators.keys()


def _iterators(of: Layer | Source) -> Iterator[object]:
    """Yields the sources before *of* that give each element once."""
    if isinstance(of, Layer):
        for each in of.inputs:
            yield from _iterators(each)
    elif isinstance(of, FromStage) and of.fed_by is not None:
        yield from _iterators(of.fed_by)
    elif isinstance(of, FromIterable) and isinstance(of.items, Iterator | AsyncIterator):
        yield of.items


def with_operator(layer: Layer, operator: Operator) -> Layer:
    """Returns *layer* with *operator* behind its last one.

    Raises:
        DefinitionError: it cannot stand there.
    """
    name, where = operator.kind, f"{operator.kind} {operator.number}"
    reduction, emission = layer.reduction, layer.emission
    if reduction is not None and emission is None:
        raise DefinitionError(
            f"{where}: what {name} gets behind {reduction.label!r} is not clear; "
            f'write .emit("state"), .emit("events") or .on_trigger(fn) before .{name}'
        )
    if emission is not None and name in {"uniq", "map_batch"}:
        raise DefinitionError(
            f"{where}: it cannot stand behind {emission.label!r}; write .shuffle() or .partition() before .{name}"
        )
    if emission is not None:
        return replace(layer, after=(*layer.after, operator))
    if name == "map_batch":
        _check_batches(layer, where)
    return replace(layer, mappers=(*layer.mappers, operator))


def _check_batches(layer: Layer, where: str) -> None:
    """Refuse a ``map_batch`` that is not the first, because it gets the lists in which elements arrive."""
    before = next((each.label for each in layer.mappers if each.kind != "map_batch"), None)
    if before is None and (layer.join is not None or layer.departition is not None):
        before = layer.label
    if before is not None:
        raise DefinitionError(
            f"{where}: it gets the lists in which elements arrive, so it cannot stand behind {before!r}; "
            "write it first, or write .shuffle() before .map_batch"
        )


def with_reduction(layer: Layer, reduction: Reduction | KeyedReduction) -> Layer:
    """Returns *layer* with its only reduction.

    Raises:
        DefinitionError: it has one.
    """
    if layer.reduction is not None:
        raise DefinitionError(
            f"{reduction.kind} {reduction.number}: these stages have the reduction {layer.reduction.label!r}; "
            f"write .partition() or .shuffle() before .{reduction.kind}"
        )
    return replace(layer, reduction=reduction)


def with_keyed_reduction(layer: Layer, reduction: KeyedReduction) -> Layer:
    """Returns the layer in which each key has one accumulator.

    With ``combine``, this is *layer*: its stages reduce what they have, and put the accumulators together by key.
    Without, elements are sent to the stage that owns their key. If *layer* has windows, its windows are those of the
    reduction. Then its stages must get elements by key. That cannot be arranged for elements that mappers change
    there, and not if something else decides where elements go; then each stage has accumulators of its own.

    Raises:
        DefinitionError: *layer* has a reduction.
    """
    if layer.reduction is None and layer.stages != 1:
        is_free = not layer.mappers and layer.join is None and not isinstance(layer.window.shape, Session)
        if is_free and _goes_by_key(layer.route) and (layer.is_windowed or isinstance(layer.route, ByKey)):
            layer = replace(layer, route=ByKey(reduction.key))
        elif not layer.is_windowed:
            if reduction.combine is not None:
                return with_reduction(layer, reduction)
            where = f"{reduction.kind} {reduction.number}"
            layer = Layer((layer,), ByKey(reduction.key), stages=layer.stages, demand=layer.demand, label=where)
    return with_reduction(layer, reduction._replace(combine=None))


def _goes_by_key(route: Route) -> bool:
    """Returns True if a key may decide which stage gets an element."""
    return isinstance(route, Spread) or (isinstance(route, ByKey) and route.hash is None)


def with_emission(layer: Layer, emission: Emission) -> Layer:
    """Returns *layer* with what its windows emit.

    Raises:
        DefinitionError: it has no reduction, or it has an emission.
    """
    name = "emit" if emission.fn is None else "on_trigger"
    _check_reduced(layer, f"{name} {emission.number}")
    if layer.emission is not None:
        raise DefinitionError(
            f"{name} {emission.number}: {layer.emission.label!r} says what the windows emit; keep one of the two"
        )
    return replace(layer, emission=emission)


def _check_reduced(layer: Layer, where: str) -> None:
    if layer.reduction is None:
        raise DefinitionError(
            f"{where}: these stages have no reduction, so their windows emit nothing; "
            f"write .reduce(init, fn), or another reduction, before .{where.partition(' ')[0]}"
        )


def with_on_late(layer: Layer, fn: Callable[..., Any], number: int) -> Layer:
    """Returns *layer* with what it emits in the place of late elements.

    Raises:
        DefinitionError: no element can be late, or it has such a function.
    """
    where = f"on_late {number}"
    if layer.window.by is None:
        raise DefinitionError(
            f"{where}: these stages have a {layer.window.kind} window, in which nothing is late; "
            "write .partition(window=Window.fixed(…)), or another window of event time, before .on_late"
        )
    if layer.on_late is not None:
        raise DefinitionError(f"{where}: these stages have .on_late(fn); keep one of the two")
    return replace(layer, on_late=fn)


def gathered(layer: Layer, departition: Departition, options: Mapping[str, Any]) -> Layer:
    """Returns the one stage behind *layer* that merges what its windows emit.

    Raises:
        OptionsError: an option is unknown, or has a wrong value.
        DefinitionError: *layer* has no reduction, or its reduction emits elements that are in no window.
    """
    where = f"{departition.kind} {departition.number}"
    _check_reduced(layer, where)
    if isinstance(layer.reduction, Reduction) and layer.reduction.emits:
        raise DefinitionError(
            f"{where}: what {layer.reduction.label!r} emits at once belongs to no window; "
            "write .reduce(init, fn) in its place"
        )
    after = new_layer(where, (layer,), Gather(), options, known=GatherOptions)
    return replace(after, stages=1, departition=departition)


def complete(layer: Layer) -> Layer:
    """Returns *layer*, if nothing is missing in it.

    Raises:
        DefinitionError: its window has no effect.
    """
    has_state = layer.reduction is not None or layer.join is not None
    if not layer.is_windowed or has_state or any(each.kind == "uniq" for each in layer.mappers):
        return layer
    if layer.window.by is not None and layer.mappers:
        return layer  # late elements are left out
    raise DefinitionError(
        f"{layer.label}: nothing is collected in its {layer.window.kind} window; "
        "write .reduce(init, fn), or another reduction, behind it, or leave the window out"
    )
