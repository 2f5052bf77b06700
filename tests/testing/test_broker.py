"""The broker in memory against a model: no message is lost, or held twice, whatever readers do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from broadway_py.clock import SystemClock
from broadway_py.message import Failed
from broadway_py.testing.broker import Broker, Delivery

READERS = ("one", "other")


class ManualClock(SystemClock):
    """A clock that a plain function moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class BrokerMachine(RuleBasedStateMachine):
    """Any order of publishing, taking, settling, waiting, closing and dying."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.broker = Broker(self.clock)
        self.broker.declare("queue", None)
        self.sent = 0
        self.ended: set[int] = set()
        #: Of each message: how many deliveries counted.
        self.attempts: dict[int, int] = {}
        self.later: dict[int, float] = {}
        self.in_hand: dict[int, Delivery] = {}

    @rule()
    def send(self) -> None:
        self.sent += 1
        self.attempts[self.sent] = 0
        self.broker.put("queue", self.sent, {"message_id": str(self.sent)}, key=None)

    @rule(target=held, most=st.integers(1, 4), reader=st.sampled_from(READERS))
    def take(self, most: int, reader: str) -> Any:
        taken = self.broker.take("queue", None, most, reader)
        free = self.sent - len(self.ended) - len(self.in_hand)
        due = free - sum(1 for at in self.later.values() if at > self.clock.now)
        assert len(taken) == min(most, due)
        for delivery in taken:
            number = delivery.stored.data
            assert number not in self.in_hand
            assert number not in self.ended
            assert self.later.pop(number, 0.0) <= self.clock.now
            self.attempts[number] += 1
            assert delivery.attempt == self.attempts[number]
            self.in_hand[number] = delivery
        return multiple(*taken)

    def let_go(self, delivery: Delivery) -> int | None:
        """The message, if the delivery is still the one that counts."""
        number: int = delivery.stored.data
        assert delivery.is_open == (self.in_hand.get(number) is delivery)
        if not delivery.is_open:
            return None
        del self.in_hand[number]
        return number

    @rule(delivery=consumes(held), how=st.sampled_from(["acked", "dead"]))
    def finish(self, delivery: Delivery, how: str) -> None:
        number = self.let_go(delivery)
        if number is None:
            return
        self.ended.add(number)
        if how == "dead":
            self.broker.bury(delivery, Failed("failed", "no"), pipeline="any")
        else:
            self.broker.finish(delivery, "acked", None)

    @rule(delivery=consumes(held), delay=st.sampled_from([0.0, 1.0, 5.0]))
    def put_off(self, delivery: Delivery, delay: float) -> None:
        number = self.let_go(delivery)
        if number is not None:
            self.broker.put_off(delivery, delay, delivery.attempt + 1, Failed("failed", "no"))
            self.later[number] = self.clock.now + delay

    @rule(delivery=consumes(held))
    def give_back(self, delivery: Delivery) -> None:
        number = self.let_go(delivery)
        if number is not None:
            self.broker.give_back(delivery)
            self.attempts[number] -= 1

    @rule(reader=st.sampled_from(READERS))
    def close(self, reader: str) -> None:
        self.broker.lose(reader)
        self.in_hand = {number: one for number, one in self.in_hand.items() if one.reader != reader}

    @rule()
    def die(self) -> None:
        dying = list(self.in_hand.values())
        self.broker.lose_all()
        assert all(delivery.is_dead and not delivery.is_open for delivery in dying)
        self.in_hand.clear()

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def each_message_is_in_one_place(self) -> None:
        counts = self.broker.counts("queue")
        later = sum(1 for at in self.later.values() if at > self.clock.now)
        assert counts["held"] == len(self.in_hand) == sum(map(self.broker.held_by, READERS))
        assert counts["later"] == later
        assert counts["ready"] == self.sent - len(self.ended) - len(self.in_hand) - later
        assert len(self.broker.left()) == self.sent - len(self.ended)
        assert len(self.broker.dead_letters) <= len(self.ended)


TestBroker = BrokerMachine.TestCase


def data(deliveries: Sequence[Delivery]) -> list[Any]:
    return [delivery.stored.data for delivery in deliveries]


def test_what_comes_back_has_its_old_place_and_what_was_put_off_goes_behind() -> None:
    clock = ManualClock()
    broker = Broker(clock)
    broker.declare("queue", None)
    for number in range(1, 5):
        broker.put("queue", number, {"message_id": str(number)}, key=None)

    first, second, third = broker.take("queue", None, 3, "reader")
    broker.give_back(second)
    broker.put_off(first, 1.0, 2, None)
    broker.lose("reader")
    assert not third.is_open
    clock.now = 1.0

    assert data(broker.take("queue", None, 9, "reader")) == [2, 3, 4, 1]
