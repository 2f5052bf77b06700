"""Ledgers that follow where messages are: messages that arrive together count as if each had arrived alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.aggregation.receipts import Receipt
from broadway_py._core.aggregation.tracked_ledger import ChildrenLedger, TrackedLedger, arrive
from broadway_py._core.ledger import Ledger
from broadway_py._core.settlement import record
from broadway_py.message import SETTLED, Acknowledgement, Message, Outcome, Spawned

OUTCOMES: list[Outcome] = ["acked", "acked", "retried", "returned", "dropped"]


class World:
    """The messages of one producer, and those that were spawned from them."""

    def __init__(self, *, one_by_one: bool) -> None:
        self.one_by_one = one_by_one
        self.progress = Progress(1, "orders")
        self.ledger = TrackedLedger(
            "orders", progress=self.progress, identity_of=lambda message: message.metadata.get("id")
        )
        self.children = ChildrenLedger("children")
        self.messages: list[Message[Any]] = []
        self.receipts: list[Receipt] = []
        self.parents: set[int] = set()

    def receive(self, identities: Sequence[bytes | None], now: float) -> None:
        entry = self.ledger.begin(now)
        self._enter(self.ledger, entry, [Message(0, {"id": identity}) for identity in identities])
        self.receipts.append(entry.receipt)

    def spawn(self, place: int, count: int, now: float) -> None:
        parent = self.messages[place % len(self.messages)]
        if parent._settlement == SETTLED or id(parent) in self.parents:
            return
        self.parents.add(id(parent))
        children: list[Message[Any]] = [
            Message(0, {}, Acknowledgement(None, None, Spawned(parent, number))) for number in range(count)
        ]
        self._enter(self.children, self.children.begin(now, parent), children)

    def _enter(self, ledger: Ledger, entry: Any, messages: list[Message[Any]]) -> None:
        for message in messages:
            message._ledger_entry = entry
        ledger.receive(entry, messages, 0)
        self.messages += messages

    def detach(self, place: int) -> None:
        place %= len(self.messages)
        message = self.messages[place]
        if message._settlement != SETTLED and id(message) not in self.parents:
            self.messages[place] = message.detached()

    def arrive(self, first: int, count: int, now: float) -> None:
        messages = self.some(first, count)
        for part in [[message] for message in messages] if self.one_by_one else [messages]:
            arrive(part, now)

    def settle(self, first: int, count: int, outcome: Outcome, now: float) -> None:
        record([one for one in self.some(first, count) if one._settlement != SETTLED], outcome, now)

    def some(self, first: int, count: int) -> list[Message[Any]]:
        first %= len(self.messages)
        return self.messages[first : first + count]

    @property
    def state(self) -> object:
        return (
            [(receipt.pending, receipt.awaited) for receipt in self.receipts],
            [(ledger.in_flight, ledger.outcomes) for ledger in (self.ledger, self.children)],
            self.progress.is_settled,
            self.progress.arrived_until(1e9),
        )


PLACES = st.integers(0, 20)
SIZES = st.sampled_from([1, 2, 3, 20])
STEPS = st.one_of(
    st.tuples(st.just("receive"), st.lists(st.sampled_from([None, b"a", b"b", b"c"]), min_size=1, max_size=4)),
    st.tuples(st.just("arrive"), PLACES, SIZES),
    st.tuples(st.just("arrive"), PLACES, SIZES),
    st.tuples(st.just("settle"), PLACES, SIZES, st.sampled_from(OUTCOMES)),
    st.tuples(st.just("spawn"), PLACES, st.integers(1, 3)),
    st.tuples(st.just("detach"), PLACES),
)


@given(steps=st.lists(STEPS, min_size=4, max_size=20))
def test_messages_that_arrive_together_count_as_if_each_had_arrived_alone(steps: list[tuple[Any, ...]]) -> None:
    together, alone = World(one_by_one=False), World(one_by_one=True)
    for now, (name, *values) in enumerate([("receive", [None, b"a", b"b"]), *steps]):
        if name != "detach":
            values.append(float(now))
        for world in (together, alone):
            getattr(world, name)(*values)
        assert together.state == alone.state
