"""The functions that the operators of a layer are made into, once for all of its stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from broadway_py.flow.description.layers import Layer
from broadway_py.flow.description.operators import KeyedReduction, Operator
from broadway_py.flow.description.settings import OnError
from broadway_py.flow.work.layer_code import LayerFunction

__all__ = ["LayerFunctions", "Part"]

#: What a stage does of a reduction with ``combine``. ``partial``: it sends its accumulators on. ``merged``: it combines
#: those of other stages, and emits.
Part = Literal["whole", "partial", "merged"]


class LayerFunctions:
    """The functions of a layer.

    Args:
        layer: the mappers and the reduction are of it.
        part: what its stages do of a reduction with ``combine``.
        on_error: what happens when a function fails on an element.

    Raises:
        DefinitionError: there are too many ``flat_map`` for one function.
    """

    def __init__(self, layer: Layer, part: Part = "whole", on_error: OnError = "raise") -> None:
        self._leaves_out = on_error != "raise"
        reduction = layer.reduction
        by_key = reduction if isinstance(reduction, KeyedReduction) else None
        merges_pairs = part == "merged" and by_key is not None
        operators = [each for each in layer.mappers if each.kind != "map_batch"] if not merges_pairs else []
        counts = by_key is not None and by_key.kind == "count_by" and by_key.key is None
        counts = counts and not self._leaves_out and not merges_pairs
        shared = 0
        if counts or layer.window.kind in {"session", "sliding"}:
            shared = next((place for place, each in enumerate(operators) if each.kind == "uniq"), len(operators))
        #: Maps each element once, whatever the number of its windows; None: there is nothing to do.
        self.mapping = self._made(operators[:shared]) if shared else None
        #: What each window does with an element; None: it only counts it.
        self.adding: LayerFunction | None = None
        if not counts or shared < len(operators):
            self.adding = LayerFunction(
                operators[shared:],
                reduction,
                leaves_out=self._leaves_out,
                merges_pairs=merges_pairs,
                counts=part == "partial" and by_key is not None,
            )
        #: What happens to what windows emit: functions, and a ``map_batch`` between them.
        self.after: tuple[LayerFunction | Operator, ...] = ()
        if part != "partial":
            self.after = tuple(self._steps(layer.after))

    def _steps(self, operators: Sequence[Operator]) -> Iterator[LayerFunction | Operator]:
        mappers: list[Operator] = []
        for operator in operators:
            if operator.kind != "map_batch":
                mappers.append(operator)
                continue
            if mappers:
                yield self._made(mappers)
            yield operator
            mappers = []
        if mappers:
            yield self._made(mappers)

    def _made(self, operators: Sequence[Operator]) -> LayerFunction:
        return LayerFunction(operators, None, leaves_out=self._leaves_out)
