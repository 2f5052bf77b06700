"""A producer that reads an iterable: a list, a generator, or an async iterable."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, TypeVar

from broadway_py._core.subscription import Cancellation
from broadway_py.arguments import Arguments, checked_by, one_of
from broadway_py.errors import OptionsError
from broadway_py.foreign import article, foreign_errors, is_a
from broadway_py.stage.producer import ProducerStage
from broadway_py.stage.waits import BegunAwait

__all__ = ["from_iterable"]

T = TypeVar("T")

#: What happens when the last consumer has left: read on for the next one, or end.
OnCancel = Literal["continue", "stop"]


@dataclass(frozen=True, init=False)
class _IterableOptions(Arguments):
    on_cancel: OnCancel = field(default="continue", metadata=checked_by(one_of("continue", "stop")))


def from_iterable(
    items: Iterable[T] | AsyncIterable[T], *, on_cancel: OnCancel = "continue", **options: Any
) -> ProducerStage[T]:
    """Returns a stage that emits the elements of *items* as they are asked for, and ends with them.

    * What has a length (a list, a range, a dict) is in memory, and is read in the event loop.
    * Another plain iterable (a generator, a file) is read in a thread, which may block. At most one ``next`` is under
      way.
    * An async iterable is read in the task of the stage.

    Of the last two, each element is handed over as it comes. (Elements that are there at the same time come in one
    list.) When the stage ends early, a generator is closed. If a ``next`` is under way then, the thread closes the
    generator when that has returned, and nobody waits for it.

    Args:
        items: what to read. An iterator is read from its current position.
        on_cancel: ``"stop"`` ends the stage when its last consumer has left.
        options: those of a :class:`ProducerStage`: ``dispatcher``, ``demand``, ``buffer_size``, ``buffer_keep``, …

    Raises:
        OptionsError: *items* cannot be read, or an option is wrong or unknown.
    """
    checked = _IterableOptions(on_cancel=on_cancel).on_cancel
    if is_a(items, AsyncIterable):
        return _AsyncIterableStage(items, checked, **options)  # type: ignore[arg-type]  # is_a narrows nothing
    if not is_a(items, Iterable):
        raise OptionsError(("items",), f"expected an iterable or async iterable, got {article(items)}")
    if is_a(items, Sized):
        return _InMemoryStage(items, checked, **options)  # type: ignore[arg-type]  # the same
    return _ThreadedStage(items, checked, **options)  # type: ignore[arg-type]  # the same


class _IterableStage(ProducerStage[T]):
    name = "from_iterable"

    def __init__(self, on_cancel: OnCancel, **options: Any) -> None:
        super().__init__(**options)
        self._on_cancel = on_cancel

    def handle_cancel(self, cancellation: Cancellation, subscription: Any) -> None:
        if self._on_cancel == "stop" and not self.outlet.edges:
            self.stop()


class _InMemoryStage(_IterableStage[T]):
    def __init__(self, items: Iterable[T], on_cancel: OnCancel, **options: Any) -> None:
        super().__init__(on_cancel, **options)
        self._items = items

    def setup(self) -> None:
        self._iterator = iter(self._items)

    def handle_demand(self, demand: int) -> list[T] | None:
        events: list[T] = []
        try:
            # extend() keeps the elements that came before an error.
            events.extend(islice(self._iterator, demand))
        finally:
            if len(events) < demand:
                self.emit(events)
        return events if len(events) == demand else None


class _AsyncIterableStage(_IterableStage[T]):
    def __init__(self, items: AsyncIterable[T], on_cancel: OnCancel, **options: Any) -> None:
        super().__init__(on_cancel, **options)
        self._items = items
        self._iterator: AsyncIterator[T] | None = None

    def _consumer_left(self) -> None:
        # handle_cancel would wait for the next element. A consumer that resubscribes is back before this is called.
        if self._on_cancel == "stop":
            asyncio.get_running_loop().call_soon(self._stop_if_alone)

    def _stop_if_alone(self) -> None:
        if self._is_running and not self.outlet.edges:
            self.stop()
            self._started().cancel()

    async def handle_demand(self, demand: int) -> list[T] | None:
        if self._iterator is None:
            self._iterator = aiter(self._items)
        ready: list[T] = []
        try:
            for _ in range(demand):
                if self._is_stopping:
                    break
                # Elements that come without a wait make up one list. Before a wait, what there is is handed over.
                steps = self._iterator.__anext__().__await__()
                try:
                    waits_for = next(steps)
                except StopIteration as came:
                    ready.append(came.value)
                    continue
                step = BegunAwait(steps, waits_for)
                try:
                    self._hand_over(ready)
                except foreign_errors(cancellations=True):
                    # A generator can only be closed between two steps.
                    await step.cancel()
                    raise
                ready.append(await step)
        except StopAsyncIteration:
            return None
        finally:
            self._hand_over(ready)
        return []

    def _hand_over(self, ready: list[T]) -> None:
        if ready:
            try:
                self.emit(ready)
            finally:
                ready.clear()

    async def teardown(self) -> None:
        if (close := getattr(self._iterator, "aclose", None)) is not None:
            await close()


class _ThreadedStage(_IterableStage[T]):
    def __init__(self, items: Iterable[T], on_cancel: OnCancel, **options: Any) -> None:
        super().__init__(on_cancel, **options)
        self._items = items

    def setup(self) -> None:
        loop = asyncio.get_running_loop()

        def tell() -> None:
            # The loop may be closed: the thread may return from a ``next`` at any time.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._collect)

        self._closed = asyncio.Event()
        self._reader = _Reader(self._items, tell)

    def handle_demand(self, demand: int) -> list[T]:
        self._reader.ask(demand)
        return []

    def _collect(self) -> None:
        """Emits what the thread has read. Called in the event loop."""
        reader = self._reader
        elements, has_ended = reader.take()
        if reader.is_closed:
            self._closed.set()
        if self._has_ended:
            return
        if elements:
            self.emit(elements)
        if has_ended:
            self._todo.append(self._end_of_thread)
            self._wake.set()

    async def _end_of_thread(self) -> None:
        if self._reader.error is not None:
            raise self._reader.error
        self._is_ending = True

    async def teardown(self) -> None:
        if self._reader.close():
            await self._closed.wait()
        if self._reader.error is not None:
            raise self._reader.error


class _Reader:
    """Reads an iterable in a thread of its own, as many elements as it was asked for.

    Args:
        items: what to read.
        tell: called in the thread when there is something to take, and when the thread ends.
    """

    def __init__(self, items: Iterable[Any], tell: Callable[[], object]) -> None:
        self._items = items
        self._tell = tell
        # Numbers of elements; None ends the thread. Demand is bounded, so this is too.
        self._asks: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._read: deque[Any] = deque()
        self._lock = threading.Lock()
        self._is_told = False
        self._is_reading = False
        self._must_close = False
        self._has_ended = False
        self.error: BaseException | None = None
        self.is_closed = False
        self._thread = threading.Thread(target=self._run, name="from_iterable", daemon=True)
        self._thread.start()

    def ask(self, count: int) -> None:
        """Lets the thread read *count* more elements."""
        self._asks.put(count)

    def take(self) -> tuple[list[Any], bool]:
        """Removes and returns what was read, and whether that was the end."""
        with self._lock:
            self._is_told = False
            read = list(self._read)
            self._read.clear()
            return read, self._has_ended

    def close(self) -> bool:
        """Ends the thread. Returns False if it is in the user's code, so that nobody should wait for it."""
        with self._lock:
            self._must_close = True
            self._asks.put(None)
            return not self._is_reading

    def _run(self) -> None:
        iterator: Iterator[Any] | None = None
        try:
            while (count := self._asks.get()) is not None and not self._must_close:
                if not self._begin():
                    break
                if iterator is None:
                    iterator = iter(self._items)
                if not self._read_some(iterator, count):
                    break
        except foreign_errors(cancellations=True) as error:
            self.error = error
        finally:
            self._is_reading = False
            if self.error is None and (close := getattr(iterator, "close", None)) is not None:
                self._close(close)
            with self._lock:
                self._has_ended = self.is_closed = True
            self._tell()

    def _begin(self) -> bool:
        with self._lock:
            self._is_reading = not self._must_close
            return self._is_reading

    def _read_some(self, iterator: Iterator[Any], count: int) -> bool:
        """Reads *count* elements. Returns False at the end, or if the stage has ended."""
        for _ in range(count):
            try:
                element = next(iterator)
            except StopIteration:
                return False
            with self._lock:
                if self._must_close:
                    return False
                self._read.append(element)
                must_tell, self._is_told = not self._is_told, True
            if must_tell:
                self._tell()
        with self._lock:
            self._is_reading = False
            return not self._must_close

    def _close(self, close: Callable[[], object]) -> None:
        try:
            close()
        except foreign_errors(cancellations=True) as error:
            self.error = error
