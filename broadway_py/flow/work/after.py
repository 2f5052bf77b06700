"""The operators behind a reduction: they work on what windows emit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadway_py.flow.description.operators import Operator
from broadway_py.flow.frames import Fired, Passed
from broadway_py.flow.operator_errors import OperatorErrors
from broadway_py.flow.work.emitter import Batch
from broadway_py.flow.work.layer_code import LayerCode, LayerFunction

__all__ = ["After"]


class After:
    """Maps what windows emit: of each firing for itself, if another stage gathers the firings.

    Args:
        steps: the functions, and a ``map_batch`` between them, which gets what one firing has emitted.
        errors: what happens when a function fails on an element.
    """

    def __init__(self, steps: Sequence[LayerFunction | Operator], errors: OperatorErrors) -> None:
        self._errors = errors
        self._steps = tuple(
            Batch(step, errors) if isinstance(step, Operator) else LayerCode(step, errors) for step in steps
        )
        #: For each step, what its ``uniq`` have seen.
        self._seen = tuple(
            [set[Any]() for _ in range(step.sets)] if isinstance(step, LayerCode) else [] for step in self._steps
        )
        self.is_async = any(step.is_async for step in self._steps)

    async def mapped(self, emitted: list[Any]) -> list[Any]:
        """Returns what becomes of *emitted*."""
        self._errors.frame = None
        mapped: list[Any] = []
        alone: list[Any] = []
        for each in emitted:
            if not isinstance(each, Fired | Passed):
                alone.append(each)
                continue
            if alone:
                mapped += await self._through(alone)
                alone = []
            if isinstance(each, Fired):
                mapped.append(each._replace(elements=await self._through(list(each.elements))))
            else:
                mapped.append(each)
        return mapped + await self._through(alone) if alone else mapped

    async def _through(self, elements: list[Any]) -> list[Any]:
        for step, seen in zip(self._steps, self._seen, strict=True):
            if isinstance(step, Batch):
                elements = await step.run(elements)
            else:
                mapped: list[Any] = []
                result = step.run(elements, mapped, None, seen)
                if step.is_async:
                    await result
                elements = mapped
        return elements
