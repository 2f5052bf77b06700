"""The drawing of a flow: sources, layers, what is exchanged, where state lies, and what may surprise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broadway_py._core.window.shape import Calendar, Count, Fixed, Global, Periodic, Session
from broadway_py._core.window.spec import UNSET, Triggers, Window
from broadway_py.flow.description.checks import is_async
from broadway_py.flow.description.layers import (
    DEFAULT_DEMAND,
    DEMAND_ACROSS_PROCESSES,
    DEMAND_ON_RAY,
    ByKey,
    Demand,
    FromFiles,
    FromIterable,
    FromStage,
    Gather,
    Layer,
    Source,
    Spread,
    ToAll,
)
from broadway_py.flow.description.operators import KeyedReduction, Reduction
from broadway_py.foreign import article, is_a

__all__ = ["Cluster", "Processes", "drawing"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Says where the workers of Ray are."""

    place: str
    #: What each worker needs, such as ``"CPU 1"``.
    needs: str
    #: The nodes with what they have; None: this program is not connected.
    nodes: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Processes:
    """Says that the workers are processes."""

    #: The sources of files that they read. All else is read by the program.
    read: Collection[Source] = ()
    #: Where they are, if they are actors of Ray: what each needs, the cluster, and its nodes as far as they are known.
    cluster: Cluster | None = None


def drawing(layer: Layer, workers: int, processes: Processes | None = None) -> str:
    """Returns the drawing of the flow whose last layer is *layer*, as text of several lines.

    Args:
        layer: the last layer.
        workers: how many stages a layer has that does not say it.
        processes: None: all stages are in this process.
    """
    drawn = [*_drawn(layer, workers, processes), "▼  the result"]
    layers = list(_layers(layer, set()))
    surprises = [f"- {each}" for one in layers for each in _surprises(one, workers, processes)]
    if processes is not None:
        surprises += [f"- {each}" for each in _of_processes(layers, workers, processes)]
    return "\n".join([*drawn, *(["", "What may surprise:"] if surprises else []), *surprises])


# --- the drawing


def _drawn(layer: Layer | Source, workers: int, processes: Processes | None) -> Iterator[str]:
    if not isinstance(layer, Layer):
        if isinstance(layer, FromStage) and layer.fed_by is not None:
            yield from _drawn(layer.fed_by, workers, processes)
            yield "│  these stages share the elements"
        yield f"○  {_source(layer, processes)}"
        return
    if len(layer.inputs) == 1 or _share_what_feeds(layer.inputs):
        yield from _drawn(layer.inputs[0], workers, processes)
        yield from (f"○  {_source(each, processes)}" for each in layer.inputs[1:] if not isinstance(each, Layer))
    else:
        for number, each in enumerate(layer.inputs):
            corner = "├" if number else "╭"
            for line in _drawn(each, workers, processes):
                yield f"{corner}  {line}"
                corner = "│"
        yield "╰  together"
    if layer.has_work:
        kept = processes is not None and set(layer.inputs) <= set(processes.read) and isinstance(layer.route, Spread)
        yield "│  each worker keeps the lines that it reads" if kept else f"│  {_way(layer, workers, processes)}"
        yield f"□  {layer.label} · {_stages(layer, workers)}"
        yield from (f"│    {line}" for line in _content(layer, workers))


def _share_what_feeds(inputs: Iterable[Layer | Source]) -> bool:
    """Returns True if *inputs* are the stages of one ``through_stages``."""
    fed = {id(each.fed_by) if isinstance(each, FromStage) and each.fed_by is not None else None for each in inputs}
    return len(fed) == 1 and None not in fed


def _source(source: Source, processes: Processes | None) -> str:
    by = "read" if processes is None else "read by the program"
    match source:
        case FromIterable():
            return f"{article(source.items)}, {by} as elements are asked for"
        case FromFiles():
            files = Path(source.paths[0]).name if len(source.paths) == 1 else f"{len(source.paths)} files"
            if processes is not None and source in processes.read:
                return f"the lines of {files}, read by the workers in ranges of at most {source.range_bytes:,} bytes"
            return f"the lines of {files}, {by} as elements are asked for"
        case FromStage():
            return f"the events of a running stage, {type(source.stage).__name__}"


def _way(layer: Layer, workers: int, processes: Processes | None) -> str:
    join = layer.join
    if join is not None:
        keys = f"{_name(join.left_key)} on the left, {_name(join.right_key)} on the right"
        return f"each element goes to the stage that owns its key: {keys}"
    match layer.route:
        case Gather():
            return "what windows emit goes to one stage"
        case ToAll():
            return "each list goes to all stages"
        case ByKey(hash=hash_) if hash_ is not None:
            return f"each element goes to the stage that {_name(hash_)} says"
        case ByKey(key=key) if _count(layer, workers) > 1:
            return f"each element goes to the stage that owns its key: {_key(key)}"
        case _ if _count(layer, workers) == 1:
            return "each list goes to the only stage"
        case _:
            most = _elements(_demand(layer, processes).chunk)
            return f"each list, of at most {most}, goes to a stage that has room for it"


def _elements(count: int) -> str:
    return "1 element" if count == 1 else f"{count:,} elements"


def _stages(layer: Layer, workers: int) -> str:
    count = _count(layer, workers)
    number = "1 stage" if count == 1 else f"{count:,} stages"
    return number if layer.stages is not None else f"{number}, one for each worker"


def _content(layer: Layer, workers: int) -> Iterator[str]:
    if layer.join is not None:
        end = "their window ends" if layer.is_windowed else "both end"
        yield f"{layer.join.label} · state: the elements of both sides, until {end}"
    if layer.departition is not None:
        yield f"{layer.departition.label} · state: what is merged of each window that is not complete"
    if layer.is_windowed:
        yield f"window: {_window(layer.window)}"
    for mapper in layer.mappers:
        yield f"{mapper.label} · state: what it has seen" if mapper.kind == "uniq" else mapper.label
    if layer.reduction is not None:
        yield f"{layer.reduction.label} · state: {_state(layer, workers)}"
        yield "emits the elements of the accumulator" if layer.emission is None else _emission(layer)
    yield from (mapper.label for mapper in layer.after)
    if layer.on_late is not None:
        yield f"on_late: {_name(layer.on_late)}"


def _emission(layer: Layer) -> str:
    emission = layer.emission
    if emission is None or emission.fn is not None:
        return "" if emission is None else emission.label
    return f"{emission.label}: {emission.emitted}"


def _state(layer: Layer, workers: int) -> str:
    reduction = layer.reduction
    keyed = isinstance(reduction, KeyedReduction)
    of = " and window" if layer.is_windowed else ""
    what = f"an accumulator for each key{of}" if keyed else f"an accumulator{of.replace(' and', ' for each')}"
    if _count(layer, workers) == 1:
        return what
    if reduction is None or reduction.combine is None:
        return f"{what}, in each stage"
    where = "by the stage that owns the key" if keyed else "by one stage"
    return f"{what}, in each stage; then combined {where}"


def _window(window: Window) -> str:
    return "; ".join([_shape(window), *_line(window), *_triggers(window.triggers)])


def _shape(window: Window) -> str:
    match window.shape:
        case Fixed(kind="fixed"):
            return f"fixed, {window.shape.size:g} s"
        case Fixed():
            return f"sliding, {window.shape.size:g} s every {window.shape.every:g} s"
        case Session():
            return f"session, gap {window.shape.gap:g} s"
        case Calendar():
            return f"calendar, {window.shape.unit} in {window.shape.tz.key}"
        case Count():
            return f"count, {window.shape.n:,} elements"
        case Periodic():
            return f"periodic, {window.shape.interval:g} s"
        case Global():
            return "global, until the end"


def _line(window: Window) -> Iterator[str]:
    """Yields what decides which elements are late."""
    if window.delay is not UNSET and window.delay:
        yield f"delay {window.delay:g} s"
    if window.lateness:
        yield f"lateness {window.lateness:g} s"


def _triggers(triggers: Triggers) -> Iterator[str]:
    if triggers.on_time:
        yield "fires when the watermark passes its end"
    if triggers.every is not None:
        yield f"fires every {triggers.every:,} elements"
    if triggers.custom is not None:
        yield f"fires when {_name(triggers.custom[1])} says so"
    yield from (f"fires every {each:g} s" for each in triggers.periodically)


def _key(key: Callable[..., Any] | None) -> str:
    return "the element itself" if key is None else _name(key)


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", None) or type(fn).__name__


def _demand(layer: Layer, processes: Processes | None) -> Demand:
    if layer.demand is not None:
        return layer.demand
    if processes is None:
        return DEFAULT_DEMAND
    return DEMAND_ACROSS_PROCESSES if processes.cluster is None else DEMAND_ON_RAY


def _count(layer: Layer, workers: int) -> int:
    return workers if layer.stages is None else layer.stages


# --- what may surprise


def _layers(layer: Layer, seen: set[int]) -> Iterator[Layer]:
    """Yields all layers before *layer*, and it, each once."""
    if id(layer) in seen:
        return
    seen.add(id(layer))
    for each in layer.inputs:
        before = each.fed_by if isinstance(each, FromStage) else each
        if isinstance(before, Layer):
            yield from _layers(before, seen)
    yield layer


def _surprises(layer: Layer, workers: int, processes: Processes | None) -> Iterator[str]:
    count, window, label = _count(layer, workers), layer.window, layer.label
    for each in layer.inputs:
        if isinstance(each, FromIterable) and is_a(each.items, (Iterator, AsyncIterator)):
            yield f"{label}: {article(each.items)} gives its elements once; a second run gets none of them."
    if count > 1:
        yield from _of_each_stage(layer, count)
        if isinstance(layer.route, ToAll):
            yield f"{label}: each element is worked on {count:,} times, once in each stage."
        most = _demand(layer, processes).chunk
        if count > workers and most > 1 and isinstance(layer.route, Spread) and layer.has_work:
            yield (
                f"{label}: {count:,} stages, but up to {_elements(most)} go to one of them at a time; "
                "for slow work, write max_demand=1."
            )
    if count <= workers:
        for mapper in (*layer.mappers, *layer.after):
            if mapper.fn is not None and is_async(mapper.fn):
                calls = "1 call waits" if count == 1 else f"{count:,} calls wait"
                yield (
                    f"{mapper.label}: each stage awaits one call after the other, so {calls} at a time; "
                    "for more, write stages=…, max_demand=1 before it."
                )
    if window.by is not None and layer.on_late is None:
        yield f"{label}: elements that come after their window has closed are left out; .on_late(fn) gets them."
    if isinstance(window.shape, Periodic) or window.triggers.periodically:
        yield f"{label}: its windows fire by the clock, so results differ from run to run."
    if isinstance(layer.reduction, Reduction) and layer.reduction.emits and layer.emission is None:
        yield (
            f"{layer.reduction.label}: the elements of the accumulator come out as well, at the end of the window; "
            'to leave them out, write .emit("nothing").'
        )


def _of_processes(layers: list[Layer], workers: int, processes: Processes) -> Iterator[str]:
    """Yields what is different in worker processes."""
    for source in processes.read:
        packed = [path for path in source.paths if path.endswith(".gz")] if isinstance(source, FromFiles) else []
        if packed:
            if len(packed) == 1:
                yield f"from_files: {Path(packed[0]).name} is packed, so one worker reads all of it."
            else:
                yield f"from_files: {len(packed):,} files are packed, so each is read by one worker."
    cluster, kind = processes.cluster, "worker process" if processes.cluster is None else "Ray worker"
    if cluster is not None:
        yield from _of_cluster(cluster, processes)
    yield f"The stages are in {_processes(layers, workers, kind)}: what a function changes outside of them stays there."
    for layer in layers:
        count = _count(layer, workers)
        if layer.has_work and layer.stages is not None and count < workers:
            verb = "is" if count == 1 else "are"
            plural = "worker processes" if cluster is None else "Ray workers"
            yield f"{layer.label}: {_stages(layer, workers)} {verb} in {count:,} of {workers:,} {plural}."


def _of_cluster(cluster: Cluster, processes: Processes) -> Iterator[str]:
    """Yields what is different on several machines."""
    yield f"Each worker needs {cluster.needs} of {cluster.place}, which spreads them over its nodes."
    if cluster.nodes is not None:
        yield f"Its nodes now: {'; '.join(cluster.nodes)}."
    if processes.read:
        yield "from_files: each node must see the same files under the same paths; this is checked at the start."


def _processes(layers: list[Layer], workers: int, kind: str) -> str:
    count = min(workers, max((_count(each, workers) for each in layers if each.has_work), default=1))
    if count == 1:
        return f"1 {kind}"
    return f"{count:,} {kind}es" if kind.endswith("s") else f"{count:,} {kind}s"


def _of_each_stage(layer: Layer, count: int) -> Iterator[str]:
    """Yields what each of several stages does on its own."""
    label, triggers, reduction = layer.label, layer.window.triggers, layer.reduction
    if isinstance(layer.window.shape, Count):
        yield f"{label}: count windows count per stage: {count:,} here."
    if triggers.every is not None:
        yield f"{label}: trigger_every({triggers.every}) counts per stage: {count:,} here."
    if isinstance(layer.route, Spread):
        for mapper in layer.mappers:
            if mapper.kind == "uniq":
                yield (
                    f"{mapper.label}: what is not repeated in one stage may come from each of the {count:,}; "
                    "write .partition(key=…) before it."
                )
        if isinstance(reduction, Reduction) and reduction.combine is None:
            yield (
                f"{reduction.label}: each of the {count:,} stages has an accumulator of its own, and emits it; "
                "for one of the whole flow, write combine=, or stages=1."
            )
    if isinstance(reduction, KeyedReduction) and reduction.combine is None and not _is_by_its_key(layer, reduction):
        yield (
            f"{reduction.label}: the same key may come from each of the {count:,} stages, "
            "unless .partition(key=…) before it has the same key."
        )


def _is_by_its_key(layer: Layer, reduction: KeyedReduction) -> bool:
    route = layer.route
    return isinstance(route, ByKey) and route.hash is None and route.key is reduction.key and not layer.mappers
