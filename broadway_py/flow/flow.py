"""``Flow``: what users chain. A flow is inert and frozen: each method returns another one."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, TypeAlias, TypeVar, Unpack, get_args, overload

from broadway_py._core.window.firing import Firing
from broadway_py._core.window.spec import Window
from broadway_py.errors import DefinitionError
from broadway_py.flow.description import checks, sources
from broadway_py.flow.description.chain import (
    GatherOptions,
    LayerOptions,
    StageOptions,
    complete,
    gathered,
    new_layer,
    with_emission,
    with_keyed_reduction,
    with_on_late,
    with_operator,
    with_reduction,
)
from broadway_py.flow.description.layers import ByKey, Layer, Route, Source, Spread, ToAll
from broadway_py.flow.description.operators import (
    Departition,
    Emission,
    Emitted,
    Join,
    JoinMode,
    KeyedReduction,
    Operator,
    OperatorKind,
    Reduction,
    label,
)
from broadway_py.flow.description.settings import RunSettings
from broadway_py.flow.running.runnable import Runnable
from broadway_py.foreign import article
from broadway_py.stage.consuming import ConsumingStage
from broadway_py.stage.emitting import EmittingStage

if TYPE_CHECKING:
    from broadway_py._core.window.effects import SideOutput

__all__ = ["Flow", "Reduced"]

T_co = TypeVar("T_co", covariant=True)
#: An accumulator.
A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
#: What is emitted at once: by ``emit_and_reduce``, or in the place of late elements.
E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)
K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")
Left = TypeVar("Left")
Right = TypeVar("Right")

#: What a function returns that may be ``async def``.
Answer: TypeAlias = "R | Coroutine[Any, Any, R]"


class Flow(Runnable[T_co]):
    """Elements of lists, files or streams, and what many stages do with them side by side.

    ::

        words = Flow.from_files("texts/*.txt").flat_map(str.split)
        for word, count in words.count_by():
            ...

    The static methods ``from_…``, ``merge``, ``bounded_join`` and ``window_join`` make a flow. Each other method
    returns a flow with one more operator. Nothing runs before the flow is iterated, or run.

    The stages of a flow stand in **layers**. All stages of a layer do the same. A source, ``partition``, ``shuffle``,
    ``merge``, ``departition``, ``take_sort``, ``through_stages`` and the joins begin a layer. The operators behind it
    belong to its stages, up to the next one of these.

    Where these methods begin a layer, they take these options:

    * ``stages``: how many stages it has. Default: one for each processor that this process may use.
    * ``max_demand`` (1,000), ``min_demand`` (half of it): a stage has asked for at most ``max_demand`` elements of each
      stage before it, and asks again when ``min_demand`` or fewer are outstanding. Lists that travel have at most
      ``max_demand - min_demand`` elements. With worker processes the defaults are 20,000 and 15,000, and the lists of a
      source begin with 250 elements, and grow while they are used up fast. For few, slow elements choose
      ``max_demand=1``.
    * ``window``: the windows in which the stages reduce. Each stage has windows of its own.
    * ``on_init``: a function of (index, number of stages) that is called when a stage starts.

    Functions may be ``async def``, unless their description says "plain".

    Raises:
        DefinitionError: by each method: it cannot stand where it stands, or a function cannot be called. The text
            begins with the method and its place in the chain, such as ``map 2``.
        OptionsError: by each method: an option is unknown, or has a wrong value.
    """

    # --- sources ---

    @staticmethod
    def from_iterable(items: Iterable[R] | AsyncIterable[R], /, **options: Unpack[LayerOptions]) -> Flow[R]:
        """Returns the flow of the elements of an iterable or async iterable.

        It is read as elements are asked for, and never as a whole.
        """
        where = "from_iterable"
        if isinstance(items, Flow):
            raise DefinitionError(f"{where}: expected an iterable, got a Flow; go on with that flow itself")
        return _source(where, (sources.iterable(where, items),), options)

    @staticmethod
    def from_iterables(
        several: Iterable[Iterable[R] | AsyncIterable[R]], /, **options: Unpack[LayerOptions]
    ) -> Flow[R]:
        """Returns the flow of the elements of several iterables, which are read side by side."""
        where = "from_iterables"
        inputs = () if isinstance(several, Flow) else sources.iterables(where, several)
        if not inputs or any(isinstance(each.items, Flow) for each in inputs):
            raise DefinitionError(f"{where}: expected iterables, got a Flow; write Flow.merge(…) for several flows")
        return _source(where, inputs, options)

    @staticmethod
    def from_stages(stages: Iterable[EmittingStage[R]], /, **options: Unpack[LayerOptions]) -> Flow[R]:
        """Returns the flow of the events of running stages. It ends when they have ended.

        They must run when the flow is started, and in the same event loop: else the flow fails.
        """
        where = "from_stages"
        return _source(where, sources.running_stages(where, stages, EmittingStage), options)

    @staticmethod
    def from_files(
        paths: sources.Paths,
        *,
        encoding: str = "utf-8",
        range_bytes: int = sources.RANGE_BYTES,
        **options: Unpack[LayerOptions],
    ) -> Flow[str]:
        """Returns the flow of the lines of files, without their ends.

        Several stages read one file: each takes a range of it. Compressed files (``.gz``) are one range.

        Args:
            paths: a path or several; ``*``, ``?``, ``[…]`` and ``**`` stand for several files.
            encoding: of the text.
            range_bytes: the most bytes of a range. Default: 1 MiB.
            options: see :class:`Flow`.
        """
        where = "from_files"
        return _source(where, (sources.files(where, paths, encoding, range_bytes),), options)

    # --- operators on elements ---

    @overload
    def map(self, fn: Callable[[T_co], Coroutine[Any, Any, R]]) -> Flow[R]: ...
    @overload
    def map(self, fn: Callable[[T_co], R]) -> Flow[R]: ...
    def map(self, fn: Callable[[Any], Any]) -> Flow[Any]:
        """Returns the flow of what *fn* returns for each element."""
        return self._operator("map", fn, "element")

    @overload
    def flat_map(self, fn: Callable[[T_co], Answer[Mapping[K, V]]]) -> Flow[tuple[K, V]]: ...
    @overload
    def flat_map(self, fn: Callable[[T_co], Answer[Iterable[R]]]) -> Flow[R]: ...
    def flat_map(self, fn: Callable[[Any], Any]) -> Flow[Any]:
        """Returns the flow of the elements of what *fn* returns for each element: an iterable. Of a mapping, items."""
        return self._operator("flat_map", fn, "element")

    def filter(self, fn: Callable[[T_co], object]) -> Flow[T_co]:
        """Returns the flow of the elements for which *fn* returns something true."""
        return self._operator("filter", fn, "element")

    def reject(self, fn: Callable[[T_co], object]) -> Flow[T_co]:
        """Returns the flow of the elements for which *fn* returns something false."""
        return self._operator("reject", fn, "element")

    @overload
    def map_values(self: Flow[tuple[K, V]], fn: Callable[[V], Coroutine[Any, Any, R]]) -> Flow[tuple[K, R]]: ...
    @overload
    def map_values(self: Flow[tuple[K, V]], fn: Callable[[V], R]) -> Flow[tuple[K, R]]: ...
    def map_values(self, fn: Callable[[Any], Any]) -> Flow[Any]:
        """Returns the flow of pairs ``(key, fn(value))``. The elements must be pairs (key, value)."""
        return self._operator("map_values", fn, "value")

    def map_batch(self, fn: Callable[[list[T_co]], Answer[Iterable[R]]]) -> Flow[R]:
        """Returns the flow of the elements of what *fn* returns for each list of elements that arrives.

        It must be the first operator of its layer; several of them may follow each other. A list has at most
        ``max_demand - min_demand`` elements, and fewer where fewer have arrived.
        """
        return self._operator("map_batch", fn, "list of elements")

    def uniq(self, key: Callable[[T_co], Any] | None = None) -> Flow[T_co]:
        """Returns the flow without elements whose key was there before, in the same stage and window.

        Args:
            key: plain; a function of an element that returns what must not be repeated. None: the element itself.
        """
        where = self._where("uniq")
        checks.key_function(where, key)
        return self._with(with_operator(self._layer, Operator("uniq", key, self._count + 1)))

    # --- new layers ---

    @overload
    def partition(
        self, *, key: Callable[[T_co], Any] | None = None, hash: None = None, **options: Unpack[LayerOptions]
    ) -> Flow[T_co]: ...
    @overload
    def partition(
        self,
        *,
        key: Callable[[T_co], Any] | None = None,
        hash: Callable[[T_co], tuple[R, int] | None],
        **options: Unpack[LayerOptions],
    ) -> Flow[R]: ...
    def partition(
        self,
        *,
        key: Callable[[Any], Any] | None = None,
        hash: Callable[[Any], Any] | None = None,  # noqa: A002  # what the original calls it
        **options: Unpack[LayerOptions],
    ) -> Flow[Any]:
        """Sends elements with equal keys to the same stage of a new layer.

        Args:
            key: plain; a function of an element that returns its key. None: the element itself.
            hash: plain; a function of an element that returns (element, stage), or None if it is to be left out. It is
                used in place of *key*. The element may be another one. Stages count from 0.
            options: see :class:`Flow`.
        """
        where = self._where("partition")
        checks.key_function(where, key)
        if hash is not None:
            checks.plain_function(f"{where}, hash", hash, "element")
        return self._next(where, ByKey(key, hash), options)

    def shuffle(self, **options: Unpack[LayerOptions]) -> Flow[T_co]:
        """Sends each list of elements to the stage of a new layer that has room for it."""
        return self._next(self._where("shuffle"), Spread(), options)

    @overload
    @staticmethod
    def merge(*flows: Flow[R], to_all: bool = False, **options: Unpack[LayerOptions]) -> Flow[R]: ...
    @overload
    @staticmethod
    def merge(flows: Iterable[Flow[R]], /, *, to_all: bool = False, **options: Unpack[LayerOptions]) -> Flow[R]: ...
    @staticmethod
    def merge(*flows: Any, to_all: bool = False, **options: Unpack[LayerOptions]) -> Flow[Any]:
        """Returns the flow of the elements of several flows.

        Args:
            flows: the flows, or one list of them.
            to_all: True: each stage of the new layer gets all elements.
            options: see :class:`Flow`.
        """
        where = "merge"
        if len(flows) == 1 and isinstance(flows[0], Iterable) and not isinstance(flows[0], Flow):
            flows = tuple(flows[0])
        if not flows:
            raise DefinitionError(f"{where}: expected at least one flow, got none")
        for flow in flows:
            _check_flow(where, flow)
        layers = tuple(flow._layer for flow in flows)
        layer = new_layer(where, layers, ToAll() if checks.flag(where, "to_all", to_all) else Spread(), options)
        return Flow(layer, max(flow._count for flow in flows), _common_settings(where, flows))

    def through_stages(self, stages: Iterable[EmittingStage[R]], /, **options: Unpack[LayerOptions]) -> Flow[R]:
        """Shares the elements among running producer-consumer *stages*. The flow goes on with their events.

        When the flow before them has ended, these stages end as well.
        """
        where = self._where("through_stages")
        layer = complete(self._layer)
        through = sources.running_stages(where, stages, EmittingStage, ConsumingStage, fed_by=layer)
        return self._with(new_layer(where, through, Spread(), options))

    # --- reductions ---

    @overload
    def reduce(
        self,
        init: Callable[[], Counter[K]],
        fn: Callable[[Counter[K], T_co], Answer[Counter[K]]],
        combine: Callable[[Counter[K], Counter[K]], Answer[Counter[K]]] | None = None,
    ) -> Reduced[tuple[K, int], Counter[K], Never]: ...
    @overload
    def reduce(
        self,
        init: Callable[[], dict[K, V]],
        fn: Callable[[dict[K, V], T_co], Answer[dict[K, V]]],
        combine: Callable[[dict[K, V], dict[K, V]], Answer[dict[K, V]]] | None = None,
    ) -> Reduced[tuple[K, V], dict[K, V], Never]: ...
    @overload
    def reduce(
        self,
        init: Callable[[], list[V]],
        fn: Callable[[list[V], T_co], Answer[list[V]]],
        combine: Callable[[list[V], list[V]], Answer[list[V]]] | None = None,
    ) -> Reduced[V, list[V], Never]: ...
    @overload
    def reduce(
        self,
        init: Callable[[], set[V]],
        fn: Callable[[set[V], T_co], Answer[set[V]]],
        combine: Callable[[set[V], set[V]], Answer[set[V]]] | None = None,
    ) -> Reduced[V, set[V], Never]: ...
    @overload
    def reduce(
        self,
        init: Callable[[], A],
        fn: Callable[[A, T_co], Answer[A]],
        combine: Callable[[A, A], Answer[A]] | None = None,
    ) -> Reduced[Any, A, Never]: ...
    def reduce(
        self,
        init: Callable[[], Any],
        fn: Callable[[Any, Any], Any],
        combine: Callable[[Any, Any], Any] | None = None,
    ) -> Reduced[Any, Any, Never]:
        """Puts the elements of each window of each stage into an accumulator.

        When the window closes, its accumulator's elements are emitted (of a mapping: its items), unless ``emit`` or
        ``on_trigger`` says something else.

        Args:
            init: plain; returns a new accumulator, such as ``dict`` or ``lambda: 0``.
            fn: ``(accumulator, element)`` -> accumulator. It may change the accumulator and return it.
            combine: ``(accumulator, accumulator)`` -> accumulator. With it, there is one accumulator of the whole flow
                for each window: each stage reduces what it has, and one stage combines their accumulators.
        """
        where = self._where("reduce")
        checks.accumulator(where, init)
        checks.function(where, fn, "accumulator", "element")
        _check_combine(where, combine)
        return self._reduced(
            with_reduction(self._layer, Reduction("reduce", init, fn, self._count + 1, combine=combine))
        )

    def emit_and_reduce(
        self, init: Callable[[], A], fn: Callable[[A, T_co], Answer[tuple[Iterable[E], A]]]
    ) -> Reduced[Any, A, E]:
        """Puts elements into an accumulator, as :meth:`reduce` does, and emits elements while doing so.

        Args:
            init: plain; returns a new accumulator.
            fn: ``(accumulator, element)`` -> (elements to emit at once, accumulator).
        """
        where = self._where("emit_and_reduce")
        checks.accumulator(where, init)
        checks.function(where, fn, "accumulator", "element")
        reduction = Reduction("emit_and_reduce", init, fn, self._count + 1, emits=True)
        return self._reduced(with_reduction(self._layer, reduction))

    @overload
    def reduce_by(
        self,
        key: None,
        init: Callable[[], A],
        fn: Callable[[A, T_co], Answer[A]],
        combine: Callable[[A, A], Answer[A]] | None = None,
    ) -> Reduced[tuple[T_co, A], dict[T_co, A], Never]: ...
    @overload
    def reduce_by(
        self,
        key: Callable[[T_co], K],
        init: Callable[[], A],
        fn: Callable[[A, T_co], Answer[A]],
        combine: Callable[[A, A], Answer[A]] | None = None,
    ) -> Reduced[tuple[K, A], dict[K, A], Never]: ...
    def reduce_by(
        self,
        key: Callable[[Any], Any] | None,
        init: Callable[[], Any],
        fn: Callable[[Any, Any], Any],
        combine: Callable[[Any, Any], Any] | None = None,
    ) -> Reduced[Any, Any, Never]:
        """Puts the elements of each key into an accumulator. Emits pairs (key, accumulator).

        It needs no :meth:`partition` before it.

        Args:
            key: plain; a function of an element that returns its key. None: the element itself.
            init: plain; returns a new accumulator of one key.
            fn: ``(accumulator, element)`` -> accumulator.
            combine: ``(accumulator, accumulator)`` -> accumulator. With it, each stage reduces what it has, and fewer
                things travel between stages.
        """
        where = self._where("reduce_by")
        checks.key_function(where, key)
        checks.accumulator(where, init)
        checks.function(where, fn, "accumulator", "element")
        _check_combine(where, combine)
        return self._keyed(KeyedReduction("reduce_by", key, init, fn, self._count + 1, combine))

    @overload
    def count_by(self, key: None = None) -> Reduced[tuple[T_co, int], dict[T_co, int], Never]: ...
    @overload
    def count_by(self, key: Callable[[T_co], K]) -> Reduced[tuple[K, int], dict[K, int], Never]: ...
    def count_by(self, key: Callable[[Any], Any] | None = None) -> Reduced[Any, Any, Never]:
        """Counts the elements of each key. Emits pairs (key, count).

        Args:
            key: plain; a function of an element that returns its key. None: the element itself.
        """
        checks.key_function(self._where("count_by"), key)
        return self._keyed(KeyedReduction("count_by", key, int, _count, self._count + 1, operator.add))

    @overload
    def sum_by(self, key: None, value: Callable[[T_co], V]) -> Reduced[tuple[T_co, V], dict[T_co, V], Never]: ...
    @overload
    def sum_by(
        self, key: Callable[[T_co], K], value: Callable[[T_co], V]
    ) -> Reduced[tuple[K, V], dict[K, V], Never]: ...
    def sum_by(self, key: Callable[[Any], Any] | None, value: Callable[[Any], Any]) -> Reduced[Any, Any, Never]:
        """Adds up a number of the elements of each key, from 0. Emits pairs (key, sum).

        Args:
            key: plain; a function of an element that returns its key. None: the element itself.
            value: plain; a function of an element that returns its number.
        """
        where = self._where("sum_by")
        checks.key_function(where, key)
        checks.plain_function(f"{where}, value", value, "element")
        return self._keyed(KeyedReduction("sum_by", key, int, _adding(value), self._count + 1, operator.add))

    @overload
    def group_by(
        self, key: Callable[[T_co], K], value: None = None
    ) -> Reduced[tuple[K, list[T_co]], dict[K, list[T_co]], Never]: ...
    @overload
    def group_by(
        self, key: Callable[[T_co], K], value: Callable[[T_co], V]
    ) -> Reduced[tuple[K, list[V]], dict[K, list[V]], Never]: ...
    def group_by(
        self, key: Callable[[Any], Any], value: Callable[[Any], Any] | None = None
    ) -> Reduced[Any, Any, Never]:
        """Collects the elements of each key in a list, in the order of their arrival. Emits pairs (key, list).

        Each stage groups what it has. So write ``.partition(key=…)`` with the same key before it, or ``stages=1``.

        Args:
            key: plain; a function of an element that returns its key.
            value: plain; a function of an element that returns what is collected. None: the element itself.
        """
        where = self._where("group_by")
        checks.plain_function(f"{where}, key", key, "element")
        if value is not None:
            checks.plain_function(f"{where}, value", value, "element")
        reduction = KeyedReduction(
            "group_by", key, list, _append if value is None else _appending(value), self._count + 1
        )
        return self._reduced(with_reduction(self._layer, reduction))

    # --- what windows emit ---

    def emit(self, what: Never, /) -> Flow[Any]:
        """Raises a DefinitionError: only behind a reduction there is something to emit. See :meth:`Reduced.emit`."""
        return self._emit(what)

    def on_trigger(self, fn: Never) -> Flow[Any]:
        """Raises a DefinitionError: only behind a reduction windows emit something. See :meth:`Reduced.on_trigger`."""
        return self._on_trigger(fn)

    def on_late(self, fn: Callable[[Any, SideOutput], Answer[Iterable[R]]]) -> Flow[T_co | R]:
        """Emits the elements that ``fn(element, info)`` returns in the place of a late element.

        An element is late when its windows have closed. Without this method, late elements are left out and counted.

        Args:
            fn: *element* is as it came into these stages. *info* has its ``time``, and the ``cause``: ``"late"``, or
                ``"future_event_time"`` if it is further ahead of the clock than ``max_ahead``.
        """
        checks.function(self._where("on_late"), fn, "element", "info")
        return self._with(with_on_late(self._layer, fn, self._count + 1))

    @overload
    def departition(
        self,
        init: Callable[[], A],
        merge: Callable[[A, T_co], Answer[A]],
        done: Callable[[A], R],
        **options: Unpack[GatherOptions],
    ) -> Flow[R]: ...
    @overload
    def departition(
        self,
        init: Callable[[], A],
        merge: Callable[[A, T_co], Answer[A]],
        done: Callable[[A, Firing], R],
        **options: Unpack[GatherOptions],
    ) -> Flow[R]: ...
    def departition(
        self,
        init: Callable[[], Any],
        merge: Callable[[Any, Any], Any],
        done: Callable[..., Any],
        **options: Unpack[GatherOptions],
    ) -> Flow[Any]:
        """Merges what the stages emit for the same window, in one stage behind them.

        When all stages have closed the window, what *done* returns for it is emitted. Each time that a stage's window
        fires, *merge* is called.

        Args:
            init: plain; returns a new merged accumulator.
            merge: ``(merged, emitted)`` -> merged. *emitted* is what the reduction emits: its accumulator if there is
                no ``emit`` or ``on_trigger``, otherwise each element.
            done: plain; ``(merged)`` or ``(merged, firing)`` -> the element that is emitted for the window.
            options: see :class:`Flow`; there is always one stage.
        """
        where = self._where("departition")
        checks.accumulator(where, init)
        checks.function(f"{where}, merge", merge, "merged", "emitted")
        takes = checks.arguments_of(f"{where}, done", done, "merged", "firing")
        checks.not_async(f"{where}, done", done, instead="write .map(fn) behind it, where fn may be async")
        departition = Departition("departition", init, merge, done, takes, self._count + 1)
        return self._with(gathered(self._layer, departition, options))

    def take_sort(
        self,
        n: int,
        *,
        key: Callable[[T_co], Any] | None = None,
        reverse: bool = False,
        **options: Unpack[GatherOptions],
    ) -> Flow[list[T_co]]:
        """Emits a sorted list of the first *n* elements of each window, over all stages.

        Each stage sorts what its window emits, and keeps *n* elements. One stage behind them merges these lists.

        Args:
            n: the most elements of a list.
            key: plain; as for ``sorted``.
            reverse: as for ``sorted``: the largest first.
            options: see :class:`Flow`; there is always one stage.
        """
        most, number = checks.whole_number("take_sort", "n", n), self._count + 1
        checks.key_function(self._where("take_sort"), key)
        checks.flag("take_sort", "reverse", reverse)

        def take_sort(elements: Iterable[Any]) -> list[list[Any]]:
            return [sorted(elements, key=key, reverse=reverse)[:most]]

        def merge(merged: list[Any], emitted: list[Any]) -> list[Any]:
            return take_sort([*merged, *emitted])[0]  # two sorted lists are merged as fast as by heapq.merge

        layer = self._layer
        if layer.reduction is not None and layer.emission is None:
            layer = with_emission(layer, Emission(number, "events"))
        sort = Operator("map_batch", take_sort, number, label("take_sort", number, key))
        layer = replace(layer, after=(*layer.after, sort))
        departition = Departition("take_sort", list, merge, _itself, 1, number)
        return self._with(gathered(layer, departition, options))

    # --- joins ---

    @overload
    @staticmethod
    def bounded_join(
        mode: Literal["inner"],
        left: Flow[Left],
        right: Flow[Right],
        left_key: Callable[[Left], object],
        right_key: Callable[[Right], object],
        join: Callable[[Left, Right], R],
        **options: Unpack[StageOptions],
    ) -> Flow[R]: ...
    @overload
    @staticmethod
    def bounded_join(
        mode: Literal["left_outer"],
        left: Flow[Left],
        right: Flow[Right],
        left_key: Callable[[Left], object],
        right_key: Callable[[Right], object],
        join: Callable[[Left, Right | None], R],
        **options: Unpack[StageOptions],
    ) -> Flow[R]: ...
    @overload
    @staticmethod
    def bounded_join(
        mode: Literal["right_outer"],
        left: Flow[Left],
        right: Flow[Right],
        left_key: Callable[[Left], object],
        right_key: Callable[[Right], object],
        join: Callable[[Left | None, Right], R],
        **options: Unpack[StageOptions],
    ) -> Flow[R]: ...
    @overload
    @staticmethod
    def bounded_join(
        mode: Literal["full_outer"],
        left: Flow[Left],
        right: Flow[Right],
        left_key: Callable[[Left], object],
        right_key: Callable[[Right], object],
        join: Callable[[Left | None, Right | None], R],
        **options: Unpack[StageOptions],
    ) -> Flow[R]: ...
    @staticmethod
    def bounded_join(  # noqa: PLR0917  # the arguments of the original, in its order
        mode: JoinMode,
        left: Flow[Any],
        right: Flow[Any],
        left_key: Callable[[Any], Any],
        right_key: Callable[[Any], Any],
        join: Callable[[Any, Any], Any],
        **options: Unpack[StageOptions],
    ) -> Flow[Any]:
        """Returns the flow of ``join(left, right)`` for each pair of elements of two flows whose keys are equal.

        Both flows are kept in memory until they end.

        Args:
            mode: ``"inner"``: pairs only. ``"left_outer"``, ``"right_outer"``, ``"full_outer"``: at the end also what
                has no partner on the left, on the right, on both sides; the other side is None.
            left: one flow.
            right: the other flow.
            left_key: plain; a function of an element on the left that returns its key.
            right_key: the same, for the right.
            join: plain; a function of an element on the left and one on the right.
            options: see :class:`Flow`, without ``window``.
        """
        return _joined("bounded_join", None, Join(mode, left_key, right_key, join, 0), (left, right), options)

    @overload
    @staticmethod
    def window_join(
        mode: Literal["inner"],
        left: Flow[Left],
        right: Flow[Right],
        window: Window,
        left_key: Callable[[Left], object],
        right_key: Callable[[Right], object],
        join: Callable[[Left, Right], R],
        **options: Unpack[StageOptions],
    ) -> Flow[R]: ...
    @overload
    @staticmethod
    def window_join(
        mode: Literal["left_outer"],
        left: Flow[Left],
        right: Flow[Right],
        window: Window,
        left_key: Callable[[Left], object],
        right_key: Callable[[Right], object],
        join: Callable[[Left, Right | None], R],
        **options: Unpack[StageOptions],
    ) -> Flow[R]: ...
    @overload
    @staticmethod
    def window_join(
        mode: Literal["right_outer"],
        left: Flow[Left],
        right: Flow[Right],
        window: Window,
        left_key: Callable[[Left], object],
        right_key: Callable[[Right], object],
        join: Callable[[Left | None, Right], R],
        **options: Unpack[StageOptions],
    ) -> Flow[R]: ...
    @overload
    @staticmethod
    def window_join(
        mode: Literal["full_outer"],
        left: Flow[Left],
        right: Flow[Right],
        window: Window,
        left_key: Callable[[Left], object],
        right_key: Callable[[Right], object],
        join: Callable[[Left | None, Right | None], R],
        **options: Unpack[StageOptions],
    ) -> Flow[R]: ...
    @staticmethod
    def window_join(  # noqa: PLR0917  # the arguments of the original, in its order
        mode: JoinMode,
        left: Flow[Any],
        right: Flow[Any],
        window: Window,
        left_key: Callable[[Any], Any],
        right_key: Callable[[Any], Any],
        join: Callable[[Any, Any], Any],
        **options: Unpack[StageOptions],
    ) -> Flow[Any]:
        """Returns the same as :meth:`bounded_join`, but only elements in the same window are pairs.

        Args:
            mode: as for :meth:`bounded_join`; the end is that of each window.
            left: one flow.
            right: the other flow.
            window: its function ``by`` gets the elements of both flows.
            left_key: plain; a function of an element on the left that returns its key.
            right_key: the same, for the right.
            join: plain; a function of an element on the left and one on the right.
            options: see :class:`Flow`.
        """
        return _joined("window_join", window, Join(mode, left_key, right_key, join, 0), (left, right), options)

    # --- how methods chain ---

    def _where(self, name: str) -> str:
        return f"{name} {self._count + 1}"

    def _with(self, layer: Layer) -> Flow[Any]:
        return Flow(layer, self._count + 1, self._settings)

    def _reduced(self, layer: Layer) -> Reduced[Any, Any, Any]:
        return Reduced(layer, self._count + 1, self._settings)

    def _next(self, where: str, route: Route, options: Mapping[str, Any]) -> Flow[Any]:
        return self._with(new_layer(where, (self._layer,), route, options))

    def _operator(self, kind: OperatorKind, fn: Callable[..., Any], takes: str) -> Flow[Any]:
        checks.function(self._where(kind), fn, takes)
        return self._with(with_operator(self._layer, Operator(kind, fn, self._count + 1)))

    def _keyed(self, reduction: KeyedReduction) -> Reduced[Any, Any, Any]:
        return self._reduced(with_keyed_reduction(self._layer, reduction))

    def _emit(self, what: Any) -> Flow[Any]:
        checks.one_of(("emit",), what, get_args(Emitted))
        return self._with(with_emission(self._layer, Emission(self._count + 1, what)))

    def _on_trigger(self, fn: Any) -> Flow[Any]:
        takes = checks.arguments_of(self._where("on_trigger"), fn, "state", "partition", "firing")
        return self._with(with_emission(self._layer, Emission(self._count + 1, None, fn, takes)))


class Reduced(Flow[T_co], Generic[T_co, A_co, E_co]):
    """A flow whose last operator is a reduction.

    ``emit`` and ``on_trigger`` say what its windows emit. Without them, it is the elements of the accumulator, and of a
    mapping its items.
    """

    @overload
    def emit(self, what: Literal["events"], /) -> Flow[T_co]: ...
    @overload
    def emit(self, what: Literal["state"], /) -> Flow[A_co | E_co]: ...
    @overload
    def emit(self, what: Literal["nothing"], /) -> Flow[E_co]: ...
    def emit(self, what: Emitted, /) -> Flow[Any]:
        """Says what a window emits each time it fires. Operators on elements may follow.

        The window keeps its accumulator until it closes.

        Args:
            what: ``"events"``: the elements of the accumulator; of a mapping, its items. ``"state"``: the accumulator.
                ``"nothing"``: nothing.
        """
        return self._emit(what)

    @overload
    def on_trigger(self: Reduced[Any, A, E], fn: Callable[[A], Answer[tuple[Iterable[R], A]]]) -> Flow[R | E]: ...
    @overload
    def on_trigger(self: Reduced[Any, A, E], fn: Callable[[A, int], Answer[tuple[Iterable[R], A]]]) -> Flow[R | E]: ...
    @overload
    def on_trigger(
        self: Reduced[Any, A, E], fn: Callable[[A, int, Firing], Answer[tuple[Iterable[R], A]]]
    ) -> Flow[R | E]: ...
    def on_trigger(self, fn: Callable[..., Any]) -> Flow[Any]:
        """Calls *fn* each time a window fires. Operators on elements may follow.

        Args:
            fn: ``(state)``, ``(state, partition)`` or ``(state, partition, firing)`` -> (elements to emit, new
                accumulator). *state* is the accumulator, *partition* is the number of the stage, from 0, and *firing*
                says which window it is and why it fires.
        """
        return self._on_trigger(fn)

    def on_late(self, fn: Callable[[Any, SideOutput], Answer[Iterable[R]]]) -> Reduced[T_co | R, A_co, E_co | R]:
        """Emits the elements that ``fn(element, info)`` returns in the place of a late element, see :class:`Flow`."""
        checks.function(self._where("on_late"), fn, "element", "info")
        return self._reduced(with_on_late(self._layer, fn, self._count + 1))

    @overload  # type: ignore[override]  # without emit, what is merged is the accumulator
    def departition(
        self: Reduced[Any, A, Any],
        init: Callable[[], V],
        merge: Callable[[V, A], Answer[V]],
        done: Callable[[V], R],
        **options: Unpack[GatherOptions],
    ) -> Flow[R]: ...
    @overload
    def departition(
        self: Reduced[Any, A, Any],
        init: Callable[[], V],
        merge: Callable[[V, A], Answer[V]],
        done: Callable[[V, Firing], R],
        **options: Unpack[GatherOptions],
    ) -> Flow[R]: ...
    def departition(
        self,
        init: Callable[[], Any],
        merge: Callable[[Any, Any], Any],
        done: Callable[..., Any],
        **options: Unpack[GatherOptions],
    ) -> Flow[Any]:
        """Merges the accumulators of the stages for the same window, in one stage behind them, see :class:`Flow`."""
        return super().departition(init, merge, done, **options)


def _source(where: str, inputs: tuple[Source, ...], options: Mapping[str, Any]) -> Flow[Any]:
    return Flow(new_layer(where, inputs, Spread(), options), 0)


def _joined(
    name: str, window: Window | None, join: Join, flows: tuple[Flow[Any], Flow[Any]], options: StageOptions
) -> Flow[Any]:
    checks.one_of((name, "mode"), join.mode, get_args(JoinMode))
    for flow in flows:
        _check_flow(name, flow)
    checks.plain_function(f"{name}, left_key", join.left_key, "element")
    checks.plain_function(f"{name}, right_key", join.right_key, "element")
    checks.function(f"{name}, join", join.fn, "left", "right")
    checks.not_async(f"{name}, join", join.fn, instead="write .map(fn) behind it, where fn may be async")
    number = max(flow._count for flow in flows) + 1
    layer = new_layer(f"{name} {number}", tuple(flow._layer for flow in flows), ByKey(), options, known=StageOptions)
    layer = replace(layer, join=join._replace(number=number))
    if window is not None:
        layer = replace(layer, window=checks.window(layer.label, window))
    return Flow(layer, number, _common_settings(name, flows))


def _check_flow(where: str, flow: object) -> None:
    if not isinstance(flow, Flow):
        raise DefinitionError(f"{where}: expected a Flow, got {article(flow)}; write Flow.from_iterable(…)")


def _common_settings(where: str, flows: Iterable[Flow[Any]]) -> RunSettings | None:
    """Returns what ``using`` has said for the flows that are merged.

    Raises:
        DefinitionError: it has said different things.
    """
    several = {flow._settings for flow in flows} - {None}
    if len(several) > 1:
        raise DefinitionError(f"{where}: the flows say different things with .using(…); write it once, behind {where}")
    return next(iter(several), None)


def _check_combine(where: str, combine: object) -> None:
    if combine is not None:
        checks.function(f"{where}, combine", combine, "accumulator", "accumulator")


def _count(count: int, _: Any) -> int:
    return count + 1


def _append(values: list[Any], element: Any) -> list[Any]:
    values.append(element)
    return values


def _appending(value: Callable[[Any], Any]) -> Callable[[list[Any], Any], list[Any]]:
    def append(values: list[Any], element: Any) -> list[Any]:
        values.append(value(element))
        return values

    return append


def _adding(value: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def add(total: Any, element: Any) -> Any:
        return total + value(element)

    return add


def _itself(merged: Any) -> Any:
    return merged
