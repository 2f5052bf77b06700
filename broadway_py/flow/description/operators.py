"""What users chain, as frozen descriptions: operators, reductions, what a trigger emits, joins and departitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

__all__ = [
    "Departition",
    "Emission",
    "Emitted",
    "Join",
    "JoinMode",
    "KeyedReduction",
    "Operator",
    "OperatorKind",
    "Reduction",
    "label",
]

OperatorKind = Literal["map", "flat_map", "filter", "reject", "map_values", "map_batch", "uniq"]
#: What a window gives when it fires: the elements of its accumulator, the accumulator itself, or nothing.
Emitted = Literal["events", "state", "nothing"]
JoinMode = Literal["inner", "left_outer", "right_outer", "full_outer"]


def label(kind: str, number: int, fn: Callable[..., Any] | None) -> str:
    """Returns what names an operator in errors and drawings, such as ``map 2: parse``."""
    name = None if fn is None else getattr(fn, "__name__", None) or type(fn).__name__
    return f"{kind} {number}" if name is None else f"{kind} {number}: {name}"


class Operator(NamedTuple):
    """A function that is called for each element, or with ``map_batch`` for each list of elements."""

    kind: OperatorKind
    #: For ``uniq``: what must not be repeated; None: the element itself.
    fn: Callable[..., Any] | None
    #: Its place in the chain, from 1.
    number: int
    #: What names it, if it was not made by the method of its kind.
    name: str | None = None

    @property
    def label(self) -> str:
        """What names it in errors and drawings."""
        return self.name or label(self.kind, self.number, self.fn)


class Reduction(NamedTuple):
    """Elements go into an accumulator, which each window of each stage has."""

    #: The name of the method that the user called.
    kind: str
    #: Returns a new accumulator.
    init: Callable[[], Any]
    #: ``(accumulator, element)`` -> accumulator. Of ``emit_and_reduce``: -> (elements to emit at once, accumulator).
    fn: Callable[[Any, Any], Any]
    number: int
    #: True for ``emit_and_reduce``.
    emits: bool = False
    #: ``(accumulator, accumulator)`` -> accumulator. With it there is one accumulator for the whole flow.
    combine: Callable[[Any, Any], Any] | None = None

    @property
    def label(self) -> str:
        """What names it in errors and drawings."""
        return label(self.kind, self.number, self.fn)


class KeyedReduction(NamedTuple):
    """Elements go into an accumulator for each key. ``reduce_by``, ``count_by`` and ``sum_by`` make it.

    With *combine*, each stage reduces what it has, and sends its accumulators to the stage that owns the key.
    """

    kind: str
    #: None: the element itself.
    key: Callable[[Any], Any] | None
    init: Callable[[], Any]
    fn: Callable[[Any, Any], Any]
    number: int
    combine: Callable[[Any, Any], Any] | None = None

    @property
    def label(self) -> str:
        """What names it in errors and drawings."""
        return label(self.kind, self.number, self.key)


class Emission(NamedTuple):
    """What a window gives when it fires: ``emit`` or ``on_trigger``."""

    number: int
    #: Of ``emit``; None: ``on_trigger``.
    emitted: Emitted | None
    #: Of ``on_trigger``: returns (elements, accumulator).
    fn: Callable[..., Any] | None = None
    #: How many arguments *fn* takes: state; partition, too; firing, too.
    takes: int = 1

    @property
    def label(self) -> str:
        """What names it in errors and drawings."""
        return label("emit" if self.fn is None else "on_trigger", self.number, self.fn)


class Join(NamedTuple):
    """Elements of two flows meet by key, in each window."""

    mode: JoinMode
    left_key: Callable[[Any], Any]
    right_key: Callable[[Any], Any]
    #: (left, right) -> element. Where one side has none, it is None.
    fn: Callable[[Any, Any], Any]
    number: int

    @property
    def label(self) -> str:
        """What names it in errors and drawings."""
        return label("join", self.number, self.fn)


class Departition(NamedTuple):
    """One stage merges what the stages before it emit for the same window, until all of them have closed it."""

    #: The name of the method that the user called.
    kind: str
    init: Callable[[], Any]
    #: ``(merged, emitted)`` -> merged.
    merge: Callable[[Any, Any], Any]
    #: What is emitted for the window. It may take the firing as a second argument.
    done: Callable[..., Any]
    #: How many arguments *done* takes.
    takes: int
    number: int

    @property
    def label(self) -> str:
        """What names it in errors and drawings."""
        return label(self.kind, self.number, self.done if self.kind == "departition" else None)
