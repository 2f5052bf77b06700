"""The register, with Hypothesis, beside a model that keeps every delivery in one list."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broadway_py._core.deduplication.register import Register, Released

IDS = st.one_of(st.none(), st.integers(0, 4).map(lambda number: number.to_bytes(16, "big")))
KEYS = st.sampled_from([None, "a", "b"])


@dataclass(eq=False)
class Delivery:
    identity: bytes | None
    key: Hashable
    state: str = "new"
    #: The id whose end decides about it, while it waits.
    holder: bytes | None = None


@dataclass
class Model:
    """Looks at all deliveries that wait, in their order, whenever something comes in or has ended."""

    is_ordered: bool
    handled: set[bytes] = field(default_factory=set)
    at_work: set[bytes] = field(default_factory=set)
    waiting: list[Delivery] = field(default_factory=list)

    def admit(self, one: Delivery) -> None:
        self.judge(one)
        if one.state == "waits":
            self.waiting.append(one)

    def judge(self, one: Delivery) -> None:
        one.state, one.holder = "waits", None
        of_key = [other for other in self.waiting if other.key == one.key]
        if self.is_ordered and one.key is not None and of_key:
            one.holder = of_key[0].holder
        elif one.identity is None:
            one.state = "new"
        elif one.identity in self.at_work:
            one.holder = one.identity
        elif one.identity in self.handled:
            one.state = "repeat"
        else:
            self.at_work.add(one.identity)
            one.state = "new"

    def ended(self, identity: bytes, *, is_handled: bool) -> None:
        self.at_work.discard(identity)
        decided = [one for one in self.waiting if one.holder == identity]
        self.waiting = [one for one in self.waiting if one.holder != identity]
        for one in decided:
            if is_handled and one.identity == identity:
                one.state = "repeat"
            else:
                self.admit(one)


class RegisterMachine(RuleBasedStateMachine):
    is_ordered = False

    def __init__(self) -> None:
        super().__init__()
        self.register: Register[Delivery] = Register(
            keep_s=600.0, key_of=(lambda delivery: delivery.key) if self.is_ordered else None
        )
        self.model = Model(self.is_ordered)
        self.said: dict[int, str] = {}
        self.deliveries: list[Delivery] = []
        self.number = 0

    @rule(identity=IDS, key=KEYS)
    def admit(self, identity: bytes | None, key: Hashable) -> None:
        one = Delivery(identity, key)
        self.deliveries.append(one)
        self.model.admit(one)
        self.said[id(one)] = self.register.admit(one, identity)

    def at_work(self, data: st.DataObject) -> bytes:
        return data.draw(st.sampled_from(sorted(self.model.at_work)))

    @precondition(lambda self: self.model.at_work)
    @rule(data=st.data(), is_stored=st.booleans())
    def succeed(self, data: st.DataObject, is_stored: bool) -> None:
        identity = self.at_work(data)
        if is_stored:
            self.number += 1
            self.register.stored(self.number, identity, 0.0)
            self.model.handled.add(identity)
        self._end(identity, is_handled=True)

    @precondition(lambda self: self.model.at_work)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        self._end(self.at_work(data), is_handled=False)

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        gone = data.draw(st.lists(st.sampled_from(self.model.waiting), min_size=1, unique_by=id))
        self.register.withdraw(gone)
        for one in gone:
            one.state = self.said[id(one)] = "withdrawn"
            self.model.waiting.remove(one)

    def _end(self, identity: bytes, *, is_handled: bool) -> None:
        self.model.ended(identity, is_handled=is_handled)
        released = self.register.ended(identity, is_handled=is_handled) or Released()
        for one in released.repeats:
            assert self.said[id(one)] == "waits"
            self.said[id(one)] = "repeat"
        for one, named in released.new:
            assert (self.said[id(one)], one.identity) == ("waits", named)
            self.said[id(one)] = "new"

    @invariant()
    def says_what_the_model_says(self) -> None:
        assert {id(one): one.state for one in self.deliveries} == self.said
        assert self.register.waiting == len(self.model.waiting)


class UnorderedMachine(RegisterMachine):
    is_ordered = False


class OrderedMachine(RegisterMachine):
    is_ordered = True


TestUnordered = UnorderedMachine.TestCase
TestOrdered = OrderedMachine.TestCase
