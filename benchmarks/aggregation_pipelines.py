"""The pipelines with an aggregator that are measured. They add values by key and minute, and check what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any, Final

from benchmarks.measure import Ids
from benchmarks.rabbitmq_queue import identity
from benchmarks.window_events import BEGIN, KEYS, LATENESS_S, SIZE_S, Event, value_of
from broadway_py import Acknowledgement, Acknowledger, Aggregator, Message, Pipeline, Window, WindowResult
from broadway_py.producer import Producer

__all__ = ["Marking", "Sums", "SumsOfADay", "SumsOfBodies", "Windowed", "WindowedByDay", "WindowedDrain"]

_A_SECOND: Final = 1_000


class Sums(Aggregator[int, Event, int]):
    """Adds the values of events by key and minute. It is told the sum of what fired."""

    window = Window.fixed(SIZE_S, by=lambda message: message.data[0], delay=LATENESS_S)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        #: All values that windows have handed out.
        self.total = 0

    def key(self, message: Message[Event]) -> int:
        """The key of the event."""
        return message.data[1]

    def initial(self) -> int:
        """Nothing."""
        return 0

    def add(self, acc: int, message: Message[Event]) -> int:
        """The sum with this event."""
        return acc + message.data[2]

    async def emit(self, results: list[WindowResult[int, int]]) -> None:
        """Adds them."""
        self.total += sum(result.value for result in results if result.is_last)


class Windowed(Pipeline[Event]):
    """Sends everything to its only aggregator. The settings have the state."""

    aggregators = {"sums": Sums}  # noqa: RUF012  # an option of the pipeline

    async def handle_message(self, message: Message[Event]) -> None:
        """Nothing."""


class SumsOfADay(Sums):
    """The same by day: in a measurement no window closes."""

    window = Window.fixed(86_400, by=lambda message: message.data[0], delay=LATENESS_S)


class WindowedByDay(Windowed):
    """Sends everything to its only aggregator."""

    aggregators = {"sums": SumsOfADay}  # noqa: RUF012  # an option of the pipeline


class SumsOfBodies(Aggregator[int, Any, int]):
    """Counts messages by key and minute, whose ids give key and time. Notes the ids: give it ``ids`` before."""

    ids: Ids
    window = Window.fixed(SIZE_S, by=lambda message: BEGIN + identity(message.data) / _A_SECOND, delay=LATENESS_S)

    def key(self, message: Message[Any]) -> int:
        """One of 10,000."""
        return identity(message.data) % KEYS

    def initial(self) -> int:
        """Nothing."""
        return 0

    def add(self, acc: int, message: Message[Any]) -> int:
        """Notes the id, and adds."""
        number = identity(message.data)
        self.ids.seen[number] += 1
        return acc + value_of(number)

    async def emit(self, results: list[WindowResult[int, int]]) -> None:
        """Nothing. The count of the ids says whether each message was added once."""


class WindowedDrain(Pipeline[bytes]):
    """Sends everything to its only aggregator, and asks for a stop at the last. Give it ``ids`` before the start."""

    ids: Ids
    aggregators = {"sums": SumsOfBodies}  # noqa: RUF012  # an option of the pipeline

    async def setup(self) -> None:
        """Nothing has come yet."""
        self._missing = len(self.ids.seen)
        self.aggregators["sums"].ids = self.ids  # type: ignore[union-attr]  # an instance in a running pipeline

    async def handle_message(self, message: Message[Any]) -> None:
        """Count it."""
        self._missing -= 1
        if self._missing == 0:
            self.request_stop()


class _Marks(Acknowledger):
    """Settles nothing, and marks nothing as delivered before."""

    async def ack(self, ref: Any, successful: Any, failed: Any) -> None:
        """Nothing."""

    def is_repeat(self, data: Any) -> bool:
        """Never."""
        return False


class Marking(Producer):
    """Gives each event an id, as a broker does, and says that it marks repeats. So identities are made and stored."""

    marks_repeats = True

    def __init__(self, items: Iterable[Event]) -> None:
        # Ids are cheap to make, because a broker's client would already have them.
        self._items: Iterator[tuple[str, Event]] = zip(map(str, count()), items, strict=False)
        self._acknowledgement = Acknowledgement(_Marks())

    async def handle_demand(self, demand: int) -> list[Message[Any]] | None:
        """The next *demand* events."""
        acknowledgement = self._acknowledgement
        return [
            Message(event, {"message_id": name}, acknowledgement) for name, event in islice(self._items, demand)
        ] or None
