"""Open batches under any order of arrivals, times and flushes, against one plain list per key."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broadway_py._core.batching import Batch, OpenBatches
from broadway_py.message import Message

TIMEOUT = 5.0

Place = tuple[str, int | None]

arriving = st.lists(
    st.tuples(
        st.sampled_from("xy"),
        st.integers(0, 12),
        st.sampled_from(["bulk", "bulk", "bulk", "flush"]),
        st.booleans(),  # does the user's function raise for it
    ),
    max_size=12,
)


class BatchMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.sent = 0
        self.pending: dict[Place, list[Message[Any]]] = {}
        self.since: dict[Place, float] = {}
        self.refused: list[Message[Any]] = []

    @initialize(
        limit=st.one_of(st.integers(1, 5), st.just("function")),
        max_bytes=st.one_of(st.none(), st.integers(1, 20)),
        partitions=st.sampled_from([None, 2]),
    )
    def configure(self, limit: Any, max_bytes: int | None, partitions: int | None) -> None:
        self.limit, self.max_bytes, self.partitions = limit, max_bytes, partitions
        self.batches = OpenBatches(
            "b",
            (0, self.split) if limit == "function" else limit,
            TIMEOUT,
            max_bytes,
            None if partitions is None else self.partition_of,
        )

    def split(self, message: Message[Any], total: int) -> tuple[str, int]:
        if message.metadata["raises"]:
            raise ValueError("the user's")
        return ("emit", 0) if total + 1 == 3 else ("cont", total + 1)

    def partition_of(self, message: Message[Any]) -> int | None:
        if message.metadata["raises"]:
            raise ValueError("the user's")
        return int(message.data) % (self.partitions or 1)

    def place(self, message: Message[Any]) -> Place:
        return str(message.batch_key), None if self.partitions is None else message.data % self.partitions

    @rule(batch=arriving, waited=st.floats(0.0, 3.0))
    def add(self, batch: list[tuple[str, int, Any, bool]], waited: float) -> None:
        self.now += waited
        messages = []
        for key, size, mode, raises in batch:
            message = Message(self.sent, {"raises": raises})
            message.batch_key, message.size, message.batch_mode = key, size, mode
            messages.append(message)
            self.sent += 1
        refusing = self.limit == "function" or self.partitions is not None
        for message in messages:
            if refusing and message.metadata["raises"]:
                self.refused.append(message)
            else:
                self.pending.setdefault(self.place(message), []).append(message)

        closed = self.batches.add(messages, self.now)

        self.close(closed, {"size", "bytes", "flush"})
        for place, left in self.pending.items():
            if left and left[0] in messages:
                self.since[place] = self.now
        assert [each.message for each in self.batches.refused] == self.refused

    def close(self, closed: list[Batch], triggers: set[str]) -> None:
        for batch in closed:
            info = batch.info
            pending = self.pending[str(info.batch_key), info.partition]
            # What waited longest under this key and partition, whole and in order: none lost, none twice.
            assert batch.messages == pending[: len(batch.messages)]
            del pending[: len(batch.messages)]
            assert info.size == len(batch.messages) > 0
            assert info.trigger in triggers
            limit = 3 if self.limit == "function" else self.limit
            assert info.size <= limit
            if info.trigger == "size":
                assert info.size == limit
            weight = sum(message.size for message in batch.messages)
            assert self.max_bytes is None or weight <= self.max_bytes or info.size == 1

    @rule(waited=st.floats(0.0, 8.0))
    def expire(self, waited: float) -> None:
        self.now += waited
        due = {place for place, left in self.pending.items() if left and self.since[place] + TIMEOUT <= self.now}

        closed = self.batches.expire(self.now)

        assert {(batch.info.batch_key, batch.info.partition) for batch in closed} == due
        self.close(closed, {"timeout"})
        assert not any(self.pending[place] for place in due)

    @rule()
    def flush(self) -> None:
        self.close(self.batches.flush(), {"flush"})
        assert not any(self.pending.values())

    @rule()
    def flush_oldest(self) -> None:
        oldest = min((self.since[place] for place, left in self.pending.items() if left), default=None)

        closed = self.batches.flush_oldest()

        assert len(closed) == (oldest is not None)
        for batch in closed:
            assert self.since[str(batch.info.batch_key), batch.info.partition] == oldest
        self.close(closed, {"flush"})

    @rule()
    def take_all(self) -> None:
        taken = self.batches.take_all()
        assert sorted(message.data for message in taken) == sorted(
            message.data for left in self.pending.values() for message in left
        )
        for left in self.pending.values():
            left.clear()

    @invariant()
    def what_is_open_is_counted_and_has_a_deadline(self) -> None:
        if not hasattr(self, "batches"):
            return
        deadlines = [self.since[place] + TIMEOUT for place, left in self.pending.items() if left]
        assert self.batches.count == sum(map(len, self.pending.values()))
        assert self.batches.next_deadline() == min(deadlines, default=None)


TestBatchMachine = BatchMachine.TestCase
