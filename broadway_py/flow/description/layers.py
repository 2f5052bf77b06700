"""The description of a flow: layers of stages, and what each takes its elements from. It is inert and frozen."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from broadway_py._core.window.shape import Global
from broadway_py._core.window.spec import Triggers, Window
from broadway_py.flow.description.operators import Departition, Emission, Join, KeyedReduction, Operator, Reduction

__all__ = [
    "ByKey",
    "Demand",
    "FromFiles",
    "FromIterable",
    "FromStage",
    "Gather",
    "Layer",
    "Route",
    "Source",
    "Spread",
    "ToAll",
]


# --- sources


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FromIterable:
    """An iterable or async iterable of this process."""

    items: Iterable[Any] | AsyncIterable[Any]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FromFiles:
    """The lines of files. A range of bytes of a file is read by one stage."""

    paths: tuple[str, ...]
    encoding: str
    #: The most bytes of a range; compressed files are one range.
    range_bytes: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FromStage:
    """A running stage that emits events."""

    stage: Any
    #: The layer that feeds it (``through_stages``). Several such sources share the elements of the same layer.
    fed_by: Layer | None = None


Source = FromIterable | FromFiles | FromStage


# --- ways into a layer


@dataclass(frozen=True, slots=True)
class Spread:
    """Each list goes to a stage that has demand."""


@dataclass(frozen=True, slots=True)
class ToAll:
    """Each list goes to every stage."""


class ByKey(NamedTuple):
    """Each element goes to the stage that owns its key."""

    #: None: the element itself.
    key: Callable[[Any], Any] | None = None
    #: element -> (element, partition), or None for an element that is left out. It is used in place of *key*.
    hash: Callable[[Any], tuple[Any, int] | None] | None = None
    #: False: the same key seldom comes again.
    repeats: bool = True


@dataclass(frozen=True, slots=True)
class Gather:
    """What the windows of the layer before have emitted goes to the only stage, with the marks of their ends."""


Route = Spread | ToAll | ByKey | Gather


class Demand(NamedTuple):
    """How many elements each stage asks each stage of the layer before for."""

    max: int
    min: int
    #: Sources begin with lists of so many elements, which grow while lists are used up fast. None: with the longest.
    first: int | None = None

    @property
    def chunk(self) -> int:
        """The most elements of a list."""
        return self.max - self.min


#: The demand where nothing is said, by whether lists go to other processes. There, a list costs as much as some hundred
#: elements, and credit must last until the other process has looked at its connections.
DEFAULT_DEMAND: Final = Demand(1_000, 500)
DEMAND_ACROSS_PROCESSES: Final = Demand(20_000, 15_000, first=250)
#: On Ray, a call takes half a millisecond of each side, however little it carries: so more lists are on their way.
DEMAND_ON_RAY: Final = Demand(100_000, 95_000, first=250)

_EVERYTHING: Final = Window.global_()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Layer:
    """The stages between two exchanges. All of them do the same."""

    #: Sources, or other layers, never both.
    inputs: tuple[Source, ...] | tuple[Layer, ...]
    route: Route
    #: How many stages; None: as many as the runner has workers, or cores.
    stages: int | None = None
    #: None: the default of the runner.
    demand: Demand | None = None
    window: Window = _EVERYTHING
    #: ``map_batch`` first, then mappers, up to the reduction.
    mappers: tuple[Operator, ...] = ()
    #: If it has ``combine``, a second layer, which is not described here, puts the accumulators together, and emits.
    #: A keyed one without ``combine`` keeps an accumulator for each key in each stage and window, and moves nothing.
    reduction: Reduction | KeyedReduction | None = None
    emission: Emission | None = None
    #: Mappers of what windows emit. A ``map_batch``, which ``take_sort`` puts last, gets what one firing has emitted,
    #: also if that is nothing. What is emitted without a firing does not go through it.
    after: tuple[Operator, ...] = ()
    #: (element, cause) -> elements that are emitted in the place of a late one.
    on_late: Callable[..., Any] | None = None
    #: The two inputs are the left and the right side.
    join: Join | None = None
    departition: Departition | None = None
    #: Called with (index, number of stages) when a stage starts.
    on_init: Callable[[int, int], Any] | None = None
    #: What made it, such as ``partition 2``, for errors and drawings.
    label: str = "layer"
    #: How many layers stand one behind the other up to this one, on the longest way.
    depth: int = field(init=False)

    def __post_init__(self) -> None:
        before = (each if isinstance(each, Layer) else getattr(each, "fed_by", None) for each in self.inputs)
        object.__setattr__(self, "depth", 1 + max((each.depth for each in before if each is not None), default=0))

    @property
    def has_work(self) -> bool:
        """False if its stages would only hand over what comes in."""
        changes = isinstance(self.route, ToAll) or (isinstance(self.route, ByKey) and self.route.hash is not None)
        return changes or any((self.mappers, self.reduction, self.join, self.departition, self.on_init))

    @property
    def is_windowed(self) -> bool:
        """False if all is in one window, which fires once, at the end."""
        return not isinstance(self.window.shape, Global) or self.window.triggers != Triggers()
