"""Identities against a model of a broker: whatever is lost, repeated or overtaken, each message is added once."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from broadway_py import Message
from broadway_py._core.aggregation.identifier import Identified
from broadway_py._core.aggregation.identities import Identities, Sorted
from broadway_py._core.ledger import Ledger, LedgerEntry
from broadway_py.acknowledger import NoopAcknowledger
from broadway_py.message import Acknowledgement

KEEP_S: Final = 100.0


class Marking(NoopAcknowledger):
    def is_repeat(self, data: Any) -> bool:
        return bool(data)


MARKS: Final = Marking()
SOURCE: Final = LedgerEntry(Ledger("source"), 0.0)


@dataclass
class Published:
    """What the broker knows about a message."""

    was_delivered: bool = False
    #: The connected time of the ack, which may have been lost. None: nobody has acked it.
    acked_s: float | None = None
    #: The broker will not deliver it again.
    is_gone: bool = False
    #: It was to fail, and has: it counts nowhere.
    has_failed: bool = False


class IdentitiesMachine(RuleBasedStateMachine):
    """An aggregator that counts messages, its file, and a broker that delivers again what it has no ack for."""

    marks: bool = True
    given: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.connected_s = 0.0
        self.broker: dict[str, Published] = {}
        #: Deliveries that handlers have. They end in any order.
        self.handled: list[Message[Any]] = []
        # The file: the counts, the identities of each checkpoint, and the memory of the last.
        self.stored: Counter[str] = Counter()
        self.blobs: dict[int, bytes] = {}
        self.memory: dict[str, Any] | None = None
        self.start()

    def start(self) -> None:
        source = {"source"}
        self.identities = Identities(
            "counts",
            looked_up=() if self.marks else source,
            marking=source if self.marks else (),
            identity=(lambda message: message.metadata["message_id"]) if self.given else None,
            keep_s=KEEP_S,
        )
        self.number = max(self.blobs, default=0)
        if self.memory is not None:
            self.number = self.memory["number"]
            self.connected_s = self.identities.restore(self.memory["identities"], self.number)
            if self.identities.in_memory:
                for number, blob in sorted(self.blobs.items()):
                    self.identities.load(number, blob)
        self.counts = Counter(self.stored)
        #: To be acked after the next checkpoint, and after the one that runs.
        self.held: list[Message[Any]] = []
        self.running: list[Message[Any]] = []
        #: What the running checkpoint stores; None: none runs.
        self.commit: tuple[int, bytes, int, Counter[str], dict[str, Any]] | None = None
        self.acks_due: list[tuple[int, list[Message[Any]]]] = []

    # --- the broker

    @rule()
    @precondition(lambda self: len(self.broker) < 8)
    def publish(self) -> None:
        self.broker[f"m{len(self.broker)}"] = Published()

    def is_known(self, name: str) -> bool:
        """Whether the aggregator must recognise it, if it was added."""
        acked_s = self.broker[name].acked_s
        return acked_s is None or self.connected_s < acked_s + KEEP_S

    def may_come(self, name: str) -> bool:
        return not self.broker[name].is_gone and self.is_known(name)

    def deliver_one(self, name: str) -> None:
        one = self.broker[name]
        metadata = {"message_id": name}
        message = Message(name.encode(), metadata, Acknowledgement(MARKS, None, one.was_delivered))
        message._ledger_entry = SOURCE
        one.was_delivered = True
        self.handled.append(message)

    @rule(data=st.data())
    @precondition(lambda self: any(map(self.may_come, self.broker)))
    def deliver(self, data: st.DataObject) -> None:
        """The first delivery, or one more because the connection was lost: handlers may still have others."""
        ready = [name for name in self.broker if self.may_come(name)]
        for name in data.draw(st.lists(st.sampled_from(ready), min_size=1, max_size=4)):
            self.deliver_one(name)

    def ack(self, messages: list[Message[Any]], *, arrives: bool) -> None:
        for message in messages:
            one = self.broker[message.metadata["message_id"]]
            one.acked_s = self.connected_s
            one.is_gone |= arrives

    @rule(seconds=st.sampled_from([1.0, 30.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.connected_s += seconds
        # A handler that takes longer than identities are kept is not provided for.
        self.handled = [message for message in self.handled if self.is_known(message.metadata["message_id"])]

    # --- the aggregator

    @rule(data=st.data(), meanwhile=st.sampled_from(["nothing", "stored", "stored and begun", "not stored"]))
    @precondition(lambda self: self.handled)
    def arrive(self, data: st.DataObject, meanwhile: str) -> None:
        """Some handlers end. While the file is asked, a checkpoint may end."""
        count = data.draw(st.integers(1, len(self.handled)))
        chosen = data.draw(st.permutations(range(len(self.handled))))[:count]
        messages = [self.handled[at] for at in chosen]
        self.handled = [message for message in self.handled if message not in messages]
        identified = self.identities.identify(messages)
        found = self.found(identified)
        if identified.wanted and self.commit is not None:
            if meanwhile == "not stored":
                self.not_stored()
            elif meanwhile != "nothing":
                self.store()
                if meanwhile == "stored and begun":
                    self.begin()
        left: Identified | None = identified
        while left is not None:
            result = self.identities.sort(left, found)
            self.add(result, [message for message in result.new if data.draw(st.integers(0, 9)) == 0])
            left = result.later

    def found(self, identified: Identified | None) -> set[bytes]:
        """Which of those that are wanted are in the file."""
        stored = {blob[at : at + 16] for blob in self.blobs.values() for at in range(0, len(blob), 16)}
        return set() if identified is None else identified.wanted & stored

    def add(self, result: Sorted, failing: list[Message[Any]]) -> None:
        for message in result.new:
            name = message.metadata["message_id"]
            if message in failing:
                # It goes to the dead letters.
                self.broker[name].is_gone = self.broker[name].has_failed = True
                continue
            self.counts[name] += 1
            self.held.append(message)
        self.identities.hold(result, failing)
        self.held += result.of_held
        self.running += result.of_running
        self.ack(result.of_committed, arrives=True)

    @rule()
    @precondition(lambda self: self.commit is None)
    def begin(self) -> None:
        number = self.number + 1
        blob = self.identities.begin(number)
        forget_before = self.identities.forget(self.connected_s)
        memory = {"number": number, "identities": json.loads(json.dumps(self.identities.memory(self.connected_s)))}
        self.commit = number, blob, forget_before, Counter(self.counts), memory
        self.running, self.held = self.held, []

    @rule()
    @precondition(lambda self: self.commit is not None)
    def store(self) -> None:
        self.write()
        self.identities.committed()
        self.acks_due.append((self.number, self.running))
        self.running = []

    def write(self) -> None:
        assert self.commit is not None
        self.number, blob, forget_before, self.stored, self.memory = self.commit
        self.commit = None
        self.blobs = {number: old for number, old in self.blobs.items() if number >= forget_before}
        if blob:
            self.blobs[self.number] = blob

    @rule()
    @precondition(lambda self: self.commit is not None)
    def not_stored(self) -> None:
        self.identities.not_committed()
        self.commit = None
        self.held, self.running = [*self.running, *self.held], []

    @rule(arrives=st.booleans())
    @precondition(lambda self: self.acks_due)
    def ack_stored(self, arrives: bool) -> None:
        number, messages = self.acks_due.pop(0)
        self.ack(messages, arrives=arrives)
        self.identities.acked(number, self.connected_s)

    @rule(was_written=st.booleans())
    def crash(self, was_written: bool) -> None:
        """All in memory is gone: the checkpoint that ran may be in the file."""
        if self.commit is not None and was_written:
            self.write()
        before = self.connected_s
        self.handled = []
        self.start()
        # The time since the last checkpoint was not stored: what is kept is kept a little longer.
        assert self.connected_s <= before
        for name, one in self.broker.items():
            if one.acked_s is not None:
                one.acked_s -= before - self.connected_s
            elif self.stored[name]:
                # It comes soon, or never: the broker had it in hand when the process died.
                one.acked_s = self.connected_s

    # --- what must hold

    @invariant()
    def nothing_is_counted_twice(self) -> None:
        failed = {name for name, one in self.broker.items() if one.has_failed}
        assert {name: count for name, count in self.counts.items() if count > 1 and name not in failed} == {}
        assert {name: count for name, count in self.stored.items() if count > 1 and name not in failed} == {}

    @invariant()
    def what_is_acked_is_stored(self) -> None:
        for name, one in self.broker.items():
            if one.is_gone and not one.has_failed:
                assert self.stored[name] == 1

    def teardown(self) -> None:
        """All that has no ack comes once more: in the end each message is counted exactly once."""
        for name in filter(self.may_come, self.broker):
            self.deliver_one(name)
        left: Identified | None = self.identities.identify(self.handled)
        found = self.found(left)
        if self.commit is not None:
            self.store()
        while left is not None:
            result = self.identities.sort(left, found)
            self.add(result, [])
            left = result.later
        self.begin()
        self.store()
        wrong = {name: self.stored[name] for name, one in self.broker.items() if not one.has_failed}
        assert {name: count for name, count in wrong.items() if count != 1} == {}


class ByMemory(IdentitiesMachine):
    """Each message is looked up, as on SQS."""

    marks = False


class ByTheUser(IdentitiesMachine):
    """Each message is looked up by what the user's ``identity`` returns."""

    given = True


@pytest.mark.parametrize("machine", [IdentitiesMachine, ByMemory, ByTheUser])
def test_each_message_is_counted_once(machine: type[IdentitiesMachine]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=100, stateful_step_count=40, deadline=None))
