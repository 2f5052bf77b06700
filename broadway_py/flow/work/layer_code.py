"""The operators of a layer as one generated function over a list of elements.

The function is made from source text, as :mod:`dataclasses` makes methods: loops and conditions around calls of the
user's functions. Each operator has lines of its own. So the line that has failed names the operator, also if the error
has passed through a generator or another function of the user, and tracebacks show this line. ::

    def layer(elements, out, accumulator, seen, stage):
        source = iter(elements)
        v0 = None
        try:
            for v0 in source:
                v1 = f1(v0)  # map 1: parse
                if not f2(v1): continue  # filter 2: is_valid
                out.append(v1)
        except errors_of_functions() as error:
            stage.failed(error, source, len(elements), v0)
        return accumulator

If elements with errors are left out, the ``try`` is inside of the loop.
"""

from __future__ import annotations

import linecache
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from operator import length_hint
from types import CodeType, TracebackType
from typing import Any, Final
from zlib import crc32

from broadway_py._core.window.firing import MISSING
from broadway_py.errors import DefinitionError
from broadway_py.flow.description.operators import KeyedReduction, Operator, Reduction
from broadway_py.flow.operator_errors import OperatorErrors, errors_of_functions
from broadway_py.flow.work.layer_text import LayerText

__all__ = ["CountingCode", "LayerCode", "LayerFunction"]

#: Python nests at most 20 blocks, and a flat_map is one of them.
_MOST_FLAT_MAPS: Final = 16

#: Works on any dict, in C.
_count: Callable[[dict[Any, int], Iterable[Any]], None] = Counter.__dict__["update"]
_traceback: Any = BaseException.__dict__["__traceback__"]


class LayerFunction:
    """The generated function of some operators. All stages of a layer call the same one.

    Args:
        operators: no ``map_batch`` is among them.
        reduction: what the elements go into; None: nothing.
        leaves_out: an element that a function fails on is left out.
        merges_pairs: the elements are pairs of a key and an accumulator, which go into a *reduction* by key.
        counts: :attr:`LayerCode.reduced` counts.

    Raises:
        DefinitionError: there are too many ``flat_map`` for one function.
    """

    def __init__(
        self,
        operators: Sequence[Operator],
        reduction: Reduction | KeyedReduction | None,
        *,
        leaves_out: bool,
        merges_pairs: bool = False,
        counts: bool = False,
    ) -> None:
        if sum(each.kind == "flat_map" for each in operators) > _MOST_FLAT_MAPS:
            raise DefinitionError(
                f"expected at most {_MOST_FLAT_MAPS} flat_map in a row, got more: write shuffle() between two of them"
            )
        text = LayerText(operators, reduction, leaves_out=leaves_out, merges_pairs=merges_pairs, counts=counts)
        #: True if :attr:`call` returns a coroutine.
        self.is_async = text.is_async
        #: How many ``uniq`` there are.
        self.sets = text.sets
        #: The label of the operator by the number of the line, and what is wrong if it fails.
        self.lines = text.operators_by_line()
        names: dict[str, Any] = {
            **text.functions,
            "errors_of_functions": partial(errors_of_functions, is_async=True)
            if self.is_async
            else errors_of_functions,
            "MISSING": MISSING,
        }
        exec(_compiled(text.written()), names)  # noqa: S102  # the text is ours
        #: Does what :meth:`LayerCode.run` does for the stage that is its last argument.
        self.call: Callable[[Sequence[Any], list[Any], Any, Sequence[set[Any]], LayerCode], Any] = names["layer"]


class LayerCode:
    """Calls the functions of operators for each element of a list, and reduces or returns what comes out.

    Args:
        function: of the operators.
        errors: what happens in this stage when a function raises.
    """

    __slots__ = ("_call", "_errors", "_lines", "is_async", "reduced", "sets")

    def __init__(self, function: LayerFunction, errors: OperatorErrors) -> None:
        #: True if :meth:`run` returns a coroutine.
        self.is_async = function.is_async
        #: How many ``uniq`` there are.
        self.sets = function.sets
        #: How many elements have gone into the reduction by key, if they are counted.
        self.reduced = 0
        self._errors = errors
        self._call = function.call
        self._lines = function.lines

    def run(self, elements: Sequence[Any], out: list[Any], accumulator: Any, seen: Sequence[set[Any]]) -> Any:
        """Returns the accumulator.

        *out* gets the elements that come out: of ``emit_and_reduce``, those to emit at once. *seen* has a set for each
        ``uniq``.
        """
        return self._call(elements, out, accumulator, seen, self)

    def failed(self, error: BaseException, source: Iterator[Any], length: int, element: Any) -> None:
        """Notes that the generated function has caught *error*, which a function of the user has raised at *element*.

        Raises:
            OperatorError: the flow ends with it.
        """
        # The generated function has caught the error, so it is the first frame of the traceback.
        label, problem = self._lines[_line_of(error)]
        index = length - length_hint(source) - 1
        if problem is not None:
            cause, error = error, TypeError(problem)
            error.__cause__ = cause
        self._errors.element_failed(label, error, element, index=index)


class CountingCode:
    """Counts equal elements. It works as a :class:`LayerCode` of ``count_by()`` without operators, in C.

    Args:
        label: of the reduction.
        errors: an element that is not hashable ends the flow.
    """

    __slots__ = ("_errors", "_label", "reduced")

    is_async = False
    sets = 0

    def __init__(self, label: str, errors: OperatorErrors) -> None:
        #: How many elements were counted.
        self.reduced = 0
        self._label = label
        self._errors = errors

    def run(
        self, elements: Sequence[Any], out: list[Any], accumulator: dict[Any, int], seen: Sequence[set[Any]]
    ) -> dict[Any, int]:
        """Adds the counts of *elements* to *accumulator*, and returns it."""
        self.reduced += len(elements)
        try:
            _count(accumulator, elements)
        except errors_of_functions() as error:
            index = next((place for place, each in enumerate(elements) if not _is_hashable(each)), 0)
            self._errors.element_failed(self._label, error, elements[index], index=index)
        return accumulator


def _is_hashable(element: Any) -> bool:
    try:
        hash(element)
    except errors_of_functions():
        return False
    return True


def _line_of(error: BaseException) -> int:
    # An error of the user may have an attribute of this name of its own.
    trace: TracebackType = _traceback.__get__(error)
    return trace.tb_lineno


@lru_cache(maxsize=256)
def _compiled(text: str) -> CodeType:
    """Returns the code of *text*. Tracebacks find its lines."""
    name = f"<flow layer {crc32(text.encode(errors='surrogatepass')):08x}>"
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    return compile(text, name, "exec")
