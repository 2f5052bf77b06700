"""The sources of a flow: iterables in memory, in threads and awaited ones, files, and running stages."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator
from itertools import islice
from typing import Any

from broadway_py._core.subscription import Cancellation, lives_on
from broadway_py.clock import Clock
from broadway_py.errors import FlowFailed
from broadway_py.flow.description.layers import FromFiles, FromStage, Source
from broadway_py.flow.failure import ElementPlace, FilePlace, LinePlace
from broadway_py.flow.operator_errors import OperatorError, errors_of_functions, pass_cancellation_on
from broadway_py.flow.plan import PlannedSource
from broadway_py.flow.stages.exchange import Exchange
from broadway_py.flow.stages.file_lines import lists_of, ranges_of
from broadway_py.flow.stages.file_turns import RangesOf
from broadway_py.flow.stages.in_memory import InMemory, in_memory, is_in_memory
from broadway_py.flow.stages.in_thread import ThreadReader
from broadway_py.flow.stages.running_stage import check_running
from broadway_py.flow.stages.source_stage import SourceStage
from broadway_py.foreign import is_a
from broadway_py.stage import Wake
from broadway_py.stage.consuming import ConsumingStage, producer_down
from broadway_py.stage.settings import SubscriptionOptions
from broadway_py.stage.subscribe import connect
from broadway_py.stage.waits import BegunAwait

__all__ = ["operator_of", "source_stage"]

_Lines = tuple[list[str], FilePlace | LinePlace]


class _InMemory(SourceStage):
    """What is in memory is read in the event loop."""

    def __init__(self, memory: InMemory, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._memory = memory

    async def _read(self) -> None:
        while await self._is_wanted():
            for _ in range(self._lists_at_once()):
                if (frame := self._memory.take(self._size.now)) is None:
                    self._flush()
                    return
                self._add(list(frame.elements), frame.first)
            self._flush()


class _Async(SourceStage):
    """An async iterable is read in the task of the source."""

    def __init__(self, items: AsyncIterable[Any], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._items = items

    async def _read(self) -> None:
        iterator = aiter(self._items)
        ready: list[Any] = []
        try:
            while ready or await self._is_wanted():
                # Elements that come without a wait make up a list. Before a wait, what there is is sent.
                steps = iterator.__anext__().__await__()
                try:
                    waits_for = next(steps)
                except StopIteration as came:
                    ready.append(came.value)
                    if len(ready) < self._size.now:
                        continue
                else:
                    step = BegunAwait(steps, waits_for)
                    try:
                        ready = self._sent(ready)
                    except OperatorError:
                        # A generator can only be closed between two steps.
                        await step.cancel()
                        raise
                    ready.append(await step)
                    pass_cancellation_on()
                ready = self._sent(ready)
        except StopAsyncIteration:
            self._sent(ready)
        except errors_of_functions(is_async=True):
            self._unsent = len(ready)
            raise
        finally:
            if (close := getattr(iterator, "aclose", None)) is not None:
                await close()

    def _sent(self, ready: list[Any]) -> list[Any]:
        if ready:
            self._add_elements(ready)
            self._flush()
        return []


class _InThread(SourceStage):
    """Another iterable is read in a thread, which may block. Each element is sent as it comes."""

    def __init__(self, items: Iterable[Any], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._items = items

    async def _read(self) -> None:
        reader = ThreadReader(self._make, self._wake.set, self._clock)
        try:
            while not self.outlet.is_left:
                demand = self.outlet.demand
                if demand > 0 and reader.has_read:
                    for _ in range(self._lists_at_once()):
                        if reader.has_read:
                            self._pass_on(reader)
                    self._flush()
                elif reader.has_ended and not reader.has_read:
                    break
                else:
                    reader.ask(max(0, demand) * self._items_of_list())
                    await self._wake.wait()
        finally:
            await reader.close()
            # Also in the place of a cancellation: what the source raises when it is closed must be told.
            if reader.error is not None:
                raise reader.error

    def _items_of_list(self) -> int:
        """Returns how many items of the reader make up a list."""
        return self._size.now

    def _make(self) -> Iterable[Any]:
        return self._items

    def _pass_on(self, reader: ThreadReader) -> None:
        self._add_elements(reader.take(self._size.now))


class _Files(_InThread):
    """The lines of files, read in a thread."""

    operator = "from_files"

    def __init__(self, source: FromFiles, *arguments: Any) -> None:
        super().__init__((), *arguments)
        self._source = source
        # The file that is read.
        self._path: str | None = None

    def _items_of_list(self) -> int:
        return 1

    def _make(self) -> Iterator[_Lines]:
        source = self._source
        for path in source.paths:
            self._path = path
            for part in ranges_of((path,), source.encoding, source.range_bytes):
                yield from lists_of(part, source.encoding, self._list_size, self.read_bytes)

    def _pass_on(self, reader: ThreadReader) -> None:
        ((lines, first),) = reader.take(1)
        self._add(lines, first)

    def _failed(self, error: BaseException) -> FlowFailed:
        return FlowFailed(self.operator, error, place=self._path)


class _FileRanges(SourceStage):
    """Some ranges of files, read in the event loop of a worker process, which does nothing else meanwhile."""

    operator = "from_files"

    def __init__(self, source: FromFiles, ranges: RangesOf, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._encoding = source.encoding
        self._ranges = ranges
        # The file that is read, and what is left of its range.
        self._path: str | None = None
        self._lists: Iterator[_Lines] = iter(())

    async def _read(self) -> None:
        while await self._is_wanted():
            most = self._lists_at_once()
            lists = list(islice(self._lists, most))
            while len(lists) < most and (part := await self._ranges.next()) is not None:
                self._path = part.path
                self._lists = lists_of(part, self._encoding, self._list_size, self.read_bytes)
                lists += islice(self._lists, most - len(lists))
            if not lists:
                return
            for lines, first in lists:
                self._add(lines, first)
            self._flush()

    def _failed(self, error: BaseException) -> FlowFailed:
        return FlowFailed(self.operator, error, place=self._path)


class _FromStage(SourceStage):
    """A running stage. Its lists are sent as they come."""

    operator = "from_stages"

    def _make_wake(self) -> Wake:
        self._reader = _Subscriber()
        return self._reader._wake

    async def _read(self) -> None:
        reader, inlet, source, way = self._reader, self._reader.inlet, self.planned.source, self.planned.way
        assert isinstance(source, FromStage)  # noqa: S101  # it was made for one
        check_running(source.stage)
        most = way.chunk * way.lists
        options = SubscriptionOptions(cancel="transient", max_demand=most, min_demand=most - way.chunk)
        connect(reader, source.stage, options)
        try:
            while await self._is_wanted():
                if isinstance(mark := inlet.next_mark(), tuple):
                    edge, end = mark
                    if not lives_on(edge.cancel_mode, end):
                        raise producer_down(reader.name, edge, end)
                    return
                if mark is None and inlet:
                    edge, events, ask = inlet.take()
                    self._send(list(events), ElementPlace(self.planned.number, self.given))
                    if ask:
                        edge.ask(ask)
                elif mark is None:
                    await self._wake.wait()
        finally:
            reader.leave()

    def _failed(self, error: BaseException) -> FlowFailed:
        return FlowFailed(self.operator, error)


class _Subscriber(ConsumingStage[Any]):
    """Stands for the flow at the other end of a subscription. It has no task."""

    name = "flow"

    def leave(self) -> None:
        """Ends the subscriptions."""
        self._has_ended = True
        self._leave(Cancellation("cancel"))


def operator_of(source: Source | None) -> str:
    """Returns what names *source* in errors."""
    kinds: dict[type[Any], type[SourceStage]] = {FromFiles: _Files, FromStage: _FromStage}
    return kinds.get(type(source), SourceStage).operator


def source_stage(
    planned: PlannedSource, exchange: Exchange, clock: Clock, ranges: RangesOf | None = None
) -> SourceStage:
    """Returns the stage that reads the source *planned*.

    Args:
        planned: the source.
        exchange: cuts its lists into lists for the next layer.
        clock: for waits.
        ranges: what a worker process reads of its files; None: this process reads all of them.
    """
    source = planned.source
    if isinstance(source, FromFiles):
        if ranges is None:
            return _Files(source, planned, exchange, clock)
        return _FileRanges(source, ranges, planned, exchange, clock)
    if isinstance(source, FromStage):
        return _FromStage(planned, exchange, clock)
    items = source.items
    if is_a(items, AsyncIterable):
        return _Async(items, planned, exchange, clock)  # type: ignore[arg-type]  # is_a narrows nothing
    if is_in_memory(source):
        return _InMemory(in_memory(planned), planned, exchange, clock)
    return _InThread(items, planned, exchange, clock)  # type: ignore[arg-type]  # the same
