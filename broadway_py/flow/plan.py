"""From the description of a flow to what runs: layers in the order of data flow, and how lists get to the next one.

Where windows depend on the order of events, lists carry the number that their source gave them (``Frame.origin``), and
each stage works on them in that order. These rules keep it free of deadlocks:

* Each stage emits the lists of a source in ascending numbers.
* A stage that gets the lists of a source from several stages puts them in order before it works on them. For this, it
  gets a list for each number: an empty one where it has no share.
* A list that is too long for the next layer is cut. Its pieces have its number, and each says which piece it is. So
  they are put in order like whole lists, whichever stages they go through.
* A layer with a reduction, a window or a join is a source itself: each of its stages numbers what it emits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple

from broadway_py._core.window.spec import Window
from broadway_py.flow.description.layers import DEFAULT_DEMAND, ByKey, Demand, FromStage, Gather, Layer, Source, ToAll
from broadway_py.flow.description.operators import Reduction

__all__ = ["Part", "Plan", "PlannedLayer", "PlannedSource", "Sharing", "Way", "plan_of"]

#: How the lists of one stage are shared among the stages of the next layer. ``spread``: a list goes to a stage with
#: demand. ``in_turn``: a list goes to the next stage, and an empty one to the others. ``by_key``: each stage gets its
#: part. ``to_all``: each stage gets the list.
Sharing = Literal["spread", "in_turn", "by_key", "to_all"]
#: What the stages of a layer do of a reduction with ``combine``. ``partial``: they send accumulators on. ``merged``:
#: they combine those of other stages, and emit.
Part = Literal["whole", "partial", "merged"]


#: The key of a pair of a key and an accumulator.
_first: Final = itemgetter(0)


class Way(NamedTuple):
    """How the lists of a source, or of the stages of a layer, reach what comes next."""

    #: The number of the layer that comes next; None: they leave the flow.
    to: int | None
    #: Where they leave: 0 is the result; the stages of ``through_stages`` are fed from the others.
    exit: int
    #: The number of stages of that layer.
    stages: int
    sharing: Sharing
    #: How many lists each stage asks each stage before it for.
    lists: int
    #: The most elements of a list that a source makes, or that reaches a stage of that layer.
    chunk: int
    #: How many elements the first lists of a source have.
    first_chunk: int
    #: The keys, where the layer has some.
    by_key: ByKey | None = None
    #: The window of the layer, if the times of its events are read before the lists leave.
    window: Window | None = None
    #: For a join: 1 is the right side.
    side: int = 0
    #: True: lists have an origin, and empty ones are sent as well.
    is_ordered: bool = False
    #: True: that layer gathers. What windows emit for it stays together.
    is_gathered: bool = False
    #: What the layer and its key are called in errors.
    label: str = "layer"
    key_name: str = "key"


class PlannedSource(NamedTuple):
    """A source of the flow."""

    source: Source
    #: Counts the sources from 0; it is also the source in their origins.
    number: int
    way: Way
    #: The exit from which the running stage is fed (``through_stages``); None: it is not fed from here.
    fed_by: int | None


class PlannedLayer(NamedTuple):
    """A layer of stages."""

    layer: Layer
    #: Counts the layers from 0, in the order of data flow.
    number: int
    stages: int
    way: Way
    #: The source in the origins of the first stage; that of the next stage is one higher. None: origins are passed on.
    first_origin: int | None
    #: The sources whose lists come here; empty if their order does not matter.
    origins: tuple[int, ...]
    #: For each source whose lists must be put in order here: how many lists make up a number.
    parts: Mapping[int, int]
    #: The most elements of a list that comes here.
    chunk: int
    part: Part
    #: True: the next layer gathers.
    is_gathered: bool

    @property
    def name(self) -> str:
        """What tells the layer from all others, for reports."""
        layer = self.layer
        return layer.label if layer.reduction is None or self.part != "merged" else layer.reduction.label


class Plan(NamedTuple):
    """What runs."""

    sources: tuple[PlannedSource, ...]
    #: Each layer comes behind all that it gets lists from, unless a running stage is between them.
    layers: tuple[PlannedLayer, ...]

    def ways(self) -> Iterator[tuple[int, Way]]:
        """Yields each way with the number of stages at its beginning."""
        yield from ((1, source.way) for source in self.sources)
        yield from ((layer.stages, layer.way) for layer in self.layers)


def plan_of(layer: Layer, cores: int, demand: Demand = DEFAULT_DEMAND) -> Plan:
    """Returns the plan of the flow whose last layer is *layer*.

    Args:
        layer: the last layer.
        cores: how many stages a layer has that does not say it.
        demand: of layers that do not say it.
    """
    return _Planner(layer, cores, demand).plan()


# --- layers without those that have no work, and with those that combine


@dataclass(slots=True, eq=False, repr=False)
class _Leaf:
    source: Source
    number: int
    is_gathered: bool = False


@dataclass(slots=True, eq=False, repr=False)
class _Node:
    layer: Layer
    before: list[_Node | _Leaf]
    stages: int
    number: int
    part: Part
    is_ordered: bool = False
    is_gathered: bool = False
    first_origin: int | None = None

    @property
    def numbers_its_own(self) -> bool:
        """True if a list that comes in does not become one list that goes out."""
        layer = self.layer
        works = (layer.reduction, layer.join, layer.departition, layer.is_windowed)
        return any(works) or isinstance(layer.route, Gather)

    @property
    def is_mixed(self) -> bool:
        """True if the lists of a source come from several of its stages."""
        return self.stages > 1 and not self.numbers_its_own


def _demand_of(layer: Layer, default: Demand) -> Demand:
    """Returns the demand of *layer*, or the least of those of the layers before it that have no work."""
    demands = [layer.demand or default]
    demands += [_demand_of(each, default) for each in layer.inputs if isinstance(each, Layer) and not each.has_work]
    return min(demands, key=lambda demand: demand.chunk)


def _divided(layer: Layer) -> list[tuple[Layer, Part]]:
    """Returns *layer*, or the two layers that share its work."""
    reduction = layer.reduction
    if reduction is None or reduction.combine is None:
        return [(layer, "whole")]
    first = replace(layer, emission=None, after=())
    label = f"{reduction.kind} {reduction.number}"  # what fails there is what the user wrote there
    second = replace(layer, inputs=(first,), mappers=(), on_late=None, join=None, on_init=None, label=label)
    if isinstance(reduction, Reduction):
        return [(first, "partial"), (replace(second, route=Gather(), stages=1), "merged")]
    return [(first, "partial"), (replace(second, route=ByKey(_first, repeats=False)), "merged")]


class _Planner:
    def __init__(self, last: Layer, cores: int, demand: Demand) -> None:
        self._cores = cores
        self._demand = demand
        self._leaves: list[_Leaf] = []
        self._nodes: list[_Node] = []
        # The layers at whose end elements leave the flow, with what is before each exit.
        self._exits: dict[int, tuple[int, Layer, list[_Node | _Leaf]]] = {}
        self._sources: dict[int, PlannedSource] = {}
        self._layers: dict[int, PlannedLayer] = {}
        self._add_exit(last)

    def plan(self) -> Plan:
        """Returns the plan."""
        next_origin = len(self._leaves)
        for node in self._nodes:
            if node.numbers_its_own:
                node.first_origin = next_origin
                next_origin += node.stages
        for exit_, layer, before in self._exits.values():
            demand = _demand_of(layer, self._demand)
            for each in before:
                self._place(each, Way(None, exit_, 1, "spread", _lists(demand), demand.chunk, _first_chunk(demand)))
        sources = tuple(self._sources[leaf.number] for leaf in self._leaves)
        return Plan(sources, tuple(self._layers[node.number] for node in self._nodes))

    # --- the tree

    def _add_exit(self, layer: Layer) -> int:
        if (known := self._exits.get(id(layer))) is not None:
            return known[0]
        number = len(self._exits)
        before: list[_Node | _Leaf] = []
        self._exits[id(layer)] = (number, layer, before)
        before += self._found(layer)
        return number

    def _found(self, layer: Layer | Source) -> list[_Node | _Leaf]:
        """Returns *layer*, or what is before it if it has no work."""
        if not isinstance(layer, Layer):
            if isinstance(layer, FromStage) and layer.fed_by is not None:
                self._add_exit(layer.fed_by)
            self._leaves.append(_Leaf(layer, len(self._leaves)))
            return [self._leaves[-1]]
        if not layer.has_work:
            return [found for each in layer.inputs for found in self._found(each)]
        before = [found for one in layer.inputs for found in self._found(one)]
        for each, part in _divided(layer):
            before = [self._node(each, part, before)]
        return before

    def _node(self, layer: Layer, part: Part, before: list[_Node | _Leaf]) -> _Node:
        node = _Node(layer, before, layer.stages or self._cores, len(self._nodes), part)
        if isinstance(layer.route, Gather):
            for each in before:
                each.is_gathered = True
        self._nodes.append(node)
        return node

    # --- the ways

    def _place(self, each: _Node | _Leaf, way: Way) -> None:
        """Notes the way of what *each* emits, and those of all before it."""
        if isinstance(each, _Leaf):
            source = each.source
            fed_by = source.fed_by if isinstance(source, FromStage) else None
            exit_ = None if fed_by is None else self._exits[id(fed_by)][0]
            self._sources[each.number] = PlannedSource(source, each.number, way, exit_)
            return
        each.is_ordered = self._depends_on_order(each) or (way.is_ordered and not each.numbers_its_own)
        for side, before, into in self._ways_into(each):
            self._place(before, into._replace(side=side))
        parts: dict[int, int] = {}
        if each.is_ordered:
            for before in each.before:
                if isinstance(before, _Node) and before.is_mixed:
                    parts |= dict.fromkeys(self._origins(before), self._parts_from(before))
        origins = self._origins_before(each) if each.is_ordered else ()
        self._layers[each.number] = PlannedLayer(
            each.layer,
            each.number,
            each.stages,
            way,
            each.first_origin,
            origins,
            parts,
            _demand_of(each.layer, self._demand).chunk,
            each.part,
            each.is_gathered,
        )

    def _ways_into(self, node: _Node) -> Iterator[tuple[int, _Node | _Leaf, Way]]:
        layer, demand, route = node.layer, _demand_of(node.layer, self._demand), node.layer.route
        is_timed = layer.window.by is not None and not isinstance(route, Gather)
        has_batch = bool(layer.mappers) and layer.mappers[0].kind == "map_batch"
        way = Way(
            node.number,
            0,
            node.stages,
            self._sharing(node),
            _lists(demand),
            demand.chunk,
            _first_chunk(demand),
            route if isinstance(route, ByKey) else None,
            layer.window if is_timed and not has_batch else None,
            is_ordered=node.is_ordered,
            is_gathered=isinstance(route, Gather),
            label=layer.label,
        )
        join = layer.join
        sides = self._sides(node)
        for side, before in sides:
            if join is None:
                yield side, before, way
            else:
                key: Callable[[Any], Any] = join.right_key if side else join.left_key
                yield side, before, way._replace(by_key=ByKey(key), key_name="right_key" if side else "left_key")

    def _sides(self, node: _Node) -> list[tuple[int, _Node | _Leaf]]:
        """Returns what is before *node*, with the side of the join where it comes in."""
        if node.layer.join is None:
            return [(0, each) for each in node.before]
        left = len(self._shape(node.layer.inputs[0]))
        return [(int(place >= left), each) for place, each in enumerate(node.before)]

    def _shape(self, layer: Layer | Source) -> list[Layer | Source]:
        if isinstance(layer, Layer) and not layer.has_work:
            return [found for each in layer.inputs for found in self._shape(each)]
        return [layer]

    def _sharing(self, node: _Node) -> Sharing:
        route = node.layer.route
        if isinstance(route, ToAll):
            return "to_all"
        if isinstance(route, ByKey) and route.hash is not None:
            return "by_key"
        if node.stages == 1:
            return "spread"
        if isinstance(route, ByKey) or node.layer.join is not None:
            return "by_key"
        mixed = any(isinstance(each, _Node) and each.is_mixed for each in node.before)
        return "in_turn" if node.is_ordered and mixed else "spread"

    # --- the order of lists

    def _depends_on_order(self, node: _Node) -> bool:
        """Returns True if the windows of *node* depend on the order of its lists."""
        window, triggers = node.layer.window, node.layer.window.triggers
        if isinstance(node.layer.route, Gather):
            return False
        counts = window.kind == "count" or triggers.every is not None or triggers.custom is not None
        return window.by is not None or (counts and len(self._origins_before(node)) == 1)

    def _origins_before(self, node: _Node) -> tuple[int, ...]:
        return tuple(origin for each in node.before for origin in self._origins(each))

    def _origins(self, each: _Node | _Leaf) -> tuple[int, ...]:
        """Returns the sources in the origins of what *each* emits."""
        if isinstance(each, _Leaf):
            return (each.number,)
        if each.first_origin is not None:
            return tuple(range(each.first_origin, each.first_origin + each.stages))
        return self._origins_before(each)

    def _parts_from(self, node: _Node) -> int:
        """Returns how many lists of each number the stages of *node*, which passes origins on, emit together."""
        return 1 if self._sharing(node) == "spread" else node.stages


def _first_chunk(demand: Demand) -> int:
    return demand.chunk if demand.first is None else demand.first


def _lists(demand: Demand) -> int:
    return max(1, demand.max // demand.chunk)
