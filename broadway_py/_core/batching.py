"""The open batches of one batcher: which messages they gather and when they close."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from broadway_py.foreign import article, foreign_errors, is_a, shown, text_of, type_name
from broadway_py.message import BatchInfo, BatchTrigger, Message, gaps_in

__all__ = ["Batch", "OpenBatches", "RefusedMessage"]

#: For how many keys the accumulator is kept between batches if batch_size is a function.
_CARRIED_KEYS = 10_000


@dataclass(slots=True, eq=False)
class Batch:
    """A closed batch: its messages, and the facts about it, such as what closed it."""

    messages: list[Message[Any]]
    info: BatchInfo


@dataclass(slots=True, eq=False)
class _Open:
    deadline: float
    accumulator: Any
    messages: list[Message[Any]] = field(default_factory=list)
    size_bytes: int = 0


@dataclass(slots=True, eq=False)
class RefusedMessage:
    """A message that is in no batch, because a function of the user raised an error for it."""

    message: Message[Any]
    error: BaseException


class _Key:
    """Wraps a batch key of a user's type. It hashes the key once, and comparing never raises.

    Raises:
        TypeError: the key does not hash.
    """

    __slots__ = ("_hash", "key")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        try:
            self._hash = hash(key)
        except foreign_errors() as error:
            raise TypeError(
                f"message.batch_key is {article(key)}, which is not hashable ({type_name(error)}: {text_of(error)}); "
                "expected a key such as text, a number, or a tuple of them"
            ) from error

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(other) is not _Key or other._hash != self._hash:
            return False
        try:
            return bool(self.key is other.key or self.key == other.key)
        except foreign_errors():
            return False  # the comparison raised, so the two count as different keys


def _deleted_key(message: Message[Any]) -> TypeError | None:
    """Returns the error for a *message* whose key was deleted; None if it has a key."""
    if "batch_key" not in gaps_in(message):
        return None
    return TypeError(
        "message.batch_key was deleted; keep it, or set it to a key such as text, a number, or a tuple of them"
    )


#: Keys of these types are used without a wrapper. Numbers of different types may be equal, as in any dict.
_PLAIN_KEYS: Final = frozenset({str, bytes, int, float, bool, type(None)})


class OpenBatches:
    """The open batches of one batcher.

    Every message given to :meth:`add` comes back exactly once: in a batch from ``add``, ``expire``, ``flush`` or
    ``flush_oldest``, from ``take_all``, or in :attr:`refused`.

    Args:
        batcher: the name of the batcher.
        batch_size: the number of messages in a full batch, or ``(initial, fn)``.
        timeout_s: a batch leaves this many seconds after its first message.
        max_bytes: a batch closes before it would have more bytes than this. A larger message is alone in its batch.
        partition_of: message -> partition index; None if the batcher is not partitioned.
    """

    def __init__(
        self,
        batcher: str,
        batch_size: int | tuple[Any, Callable[[Any, Any], tuple[str, Any]]],
        timeout_s: float,
        max_bytes: int | None = None,
        partition_of: Callable[[Message[Any]], int | None] | None = None,
    ) -> None:
        self.batcher = batcher
        self.refused: list[RefusedMessage] = []
        #: The number of messages in open batches.
        self.count = 0
        self._limit = batch_size if isinstance(batch_size, int) else None
        self._initial: Any = None
        self._split: Callable[[Any, Any], tuple[str, Any]] | None = None
        if not isinstance(batch_size, int):
            self._initial, self._split = batch_size
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._partition_of = partition_of
        # By (key, partition). All batches wait equally long, so the order is also that of their deadlines.
        self._open: dict[tuple[Hashable, int | None], _Open] = {}
        self._carried: OrderedDict[tuple[Hashable, int | None], Any] = OrderedDict()

    def next_deadline(self) -> float | None:
        """Returns when the next batch leaves by time; None if none is open."""
        first = next(iter(self._open.values()), None)
        return None if first is None else first.deadline

    def add(self, messages: Sequence[Message[Any]], now: float) -> list[Batch]:
        """Puts *messages* into their batches and returns the batches that this has closed.

        A run is a series of neighbours with one key and partition. A message in flush mode closes its batch at the end
        of its run.
        """
        closed: list[Batch] = []
        for place, run in self._runs(messages):
            self._add_run(place, run, now, closed)
            for message in run:
                if message._batch_mode != "bulk":
                    if place in self._open:
                        closed.append(self._close(place, "flush"))
                    break
        return closed

    def expire(self, now: float) -> list[Batch]:
        """Closes and returns the batches whose deadline has passed."""
        due = []
        for place, batch in self._open.items():
            if batch.deadline > now:
                break
            due.append(place)
        return [self._close(place, "timeout") for place in due]

    def flush(self) -> list[Batch]:
        """Closes and returns all open batches."""
        return [self._close(place, "flush") for place in list(self._open)]

    def flush_oldest(self) -> list[Batch]:
        """Closes and returns the batch that has waited longest; the list is empty if none is open."""
        oldest = next(iter(self._open), None)
        return [] if oldest is None else [self._close(oldest, "flush")]

    def take_all(self) -> list[Message[Any]]:
        """Takes all messages out of the open batches and returns them, without making batches."""
        messages = [message for batch in self._open.values() for message in batch.messages]
        self._open.clear()
        self.count = 0
        return messages

    def _runs(self, messages: Sequence[Message[Any]]) -> list[tuple[tuple[Hashable, int | None], list[Message[Any]]]]:
        """Groups neighbours with the same key and partition."""
        runs: list[tuple[tuple[Hashable, int | None], list[Message[Any]]]] = []
        last: tuple[Hashable, int | None] | None = None
        run: list[Message[Any]] = []
        partition_of = self._partition_of
        key: Hashable = None
        for message in messages:
            try:
                key_now = message.batch_key
                if partition_of is None and last is not None and key_now is key:
                    run.append(message)
                    continue
                place = (
                    key_now if type(key_now) in _PLAIN_KEYS else _Key(key_now),
                    None if partition_of is None else partition_of(message),
                )
                if place == last:
                    run.append(message)
                else:
                    last, run, key = place, [message], key_now
                    runs.append((place, run))
            except foreign_errors() as error:
                # The code of the user raised: the error concerns only this message.
                self.refused.append(RefusedMessage(message, _deleted_key(message) or error))
        return runs

    def _add_run(
        self, place: tuple[Hashable, int | None], run: list[Message[Any]], now: float, closed: list[Batch]
    ) -> None:
        if self._limit is not None and self._max_bytes is None:
            self._add_counted(place, run, now, closed)
            return
        for message in run:
            self._add_one(place, message, now, closed)

    def _add_counted(
        self, place: tuple[Hashable, int | None], run: list[Message[Any]], now: float, closed: list[Batch]
    ) -> None:
        limit = self._limit or 0
        start = 0
        while start < len(run):
            batch = self._opened(place, now)
            part = run[start : start + limit - len(batch.messages)]
            batch.messages += part
            self.count += len(part)
            start += len(part)
            if len(batch.messages) == limit:
                closed.append(self._close(place, "size"))

    def _add_one(
        self, place: tuple[Hashable, int | None], message: Message[Any], now: float, closed: list[Batch]
    ) -> None:
        if self._max_bytes is not None:
            batch = self._open.get(place)
            if batch is not None and batch.size_bytes + message._size > self._max_bytes:
                closed.append(self._close(place, "bytes"))
        batch = self._opened(place, now)
        verdict = "cont"
        if self._split is not None:
            try:
                verdict, accumulator = self._split(message, batch.accumulator)
                if not is_a(verdict, str) or verdict not in ("emit", "cont"):
                    raise ValueError(f"the batch_size function returned {shown(verdict)}; expected 'emit' or 'cont'")
            except foreign_errors() as error:
                # The code of the user raised: the error concerns only this message.
                self.refused.append(RefusedMessage(message, error))
                if not batch.messages:
                    del self._open[place]
                    self._carry(place, batch.accumulator)
                return
            batch.accumulator = accumulator
        batch.messages.append(message)
        batch.size_bytes += message._size
        self.count += 1
        if verdict == "emit" or len(batch.messages) == self._limit:
            closed.append(self._close(place, "size"))
        elif self._max_bytes is not None and batch.size_bytes >= self._max_bytes:
            closed.append(self._close(place, "bytes"))

    def _opened(self, place: tuple[Hashable, int | None], now: float) -> _Open:
        batch = self._open.get(place)
        if batch is None:
            accumulator = self._carried.pop(place, self._initial)
            batch = self._open[place] = _Open(now + self._timeout_s, accumulator)
        return batch

    def _carry(self, place: tuple[Hashable, int | None], accumulator: Any) -> None:
        self._carried[place] = accumulator
        if len(self._carried) > _CARRIED_KEYS:
            self._carried.popitem(last=False)

    def _close(self, place: tuple[Hashable, int | None], trigger: BatchTrigger) -> Batch:
        batch = self._open.pop(place)
        self.count -= len(batch.messages)
        if self._split is not None and trigger == "size":
            # The next batch of this key begins with the accumulator that the function returned with "emit".
            self._carry(place, batch.accumulator)
        key, partition = place
        if type(key) is _Key:
            key = key.key
        return Batch(batch.messages, BatchInfo(self.batcher, key, partition, len(batch.messages), trigger))
