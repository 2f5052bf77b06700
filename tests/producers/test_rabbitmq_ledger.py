"""How settled deliveries are told to the broker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broadway_py.producers.rabbitmq.settlements.ledger import Settlement, TagLedger


def ledger_of(count: int) -> TagLedger:
    ledger = TagLedger()
    for tag in range(1, count + 1):
        ledger.delivered(tag)
    return ledger


def test_a_run_from_the_lowest_open_tag_is_one_ack_for_all() -> None:
    ledger = ledger_of(5)
    for tag in (3, 1, 2):
        assert ledger.ack(tag)
    assert ledger.take() == [Settlement("ack", 3, multiple=True)]


def test_an_ack_for_several_never_passes_an_open_tag() -> None:
    ledger = ledger_of(6)
    for tag in (1, 2, 4, 5):
        ledger.ack(tag)
    assert ledger.take() == [Settlement("ack", 2, multiple=True), Settlement("ack", 4), Settlement("ack", 5)]


def test_a_single_ack_stays_single() -> None:
    ledger = ledger_of(2)
    ledger.ack(1)
    assert ledger.take() == [Settlement("ack", 1)]


def test_what_is_not_acked_goes_first_so_that_an_ack_for_several_may_pass_over_it() -> None:
    ledger = ledger_of(5)
    ledger.ack(1)
    ledger.reject(2, requeue=False)
    ledger.release(3)
    ledger.ack(4)
    assert ledger.take() == [
        Settlement("reject", 2, requeue=False),
        Settlement("nack", 3, requeue=True),
        Settlement("ack", 4, multiple=True),
    ]


def test_an_ack_for_several_never_passes_a_number_that_was_not_seen() -> None:
    ledger = TagLedger()
    for tag in (1, 3, 4):  # 2 went to somebody else on this channel
        ledger.delivered(tag)
        ledger.ack(tag)
    assert ledger.take() == [Settlement("ack", 1), Settlement("ack", 3), Settlement("ack", 4)]


def test_a_tag_is_settled_once() -> None:
    ledger = ledger_of(1)
    assert ledger.ack(1)
    assert not ledger.ack(1)
    assert not ledger.reject(1, requeue=True)
    assert not ledger.release(1)
    assert not ledger.ack(7)
    assert ledger.take() == [Settlement("ack", 1)]
    assert ledger.take() == []


class Broker:
    """What a broker makes of the methods on one channel."""

    def __init__(self) -> None:
        self.unacked: set[int] = set()
        self.became: dict[int, str] = {}

    def hear(self, said: Settlement) -> None:
        tags = {tag for tag in self.unacked if tag <= said.tag} if said.multiple else {said.tag}
        assert said.tag in self.unacked, f"unknown delivery tag {said.tag}: the channel would be closed"
        self.unacked -= tags
        self.became.update(dict.fromkeys(tags, said.method))


def settle(ledger: TagLedger, method: str, tag: int) -> bool:
    if method == "ack":
        return ledger.ack(tag)
    return ledger.release(tag) if method == "nack" else ledger.reject(tag, requeue=True)


# Half of the steps are acks, and deliveries come in handfuls: what goes wrong does so between several of both.
STEPS = st.sampled_from(["deliver", "ack", "ack", "ack", "reject", "nack", "take"])


@given(st.lists(st.tuples(STEPS, st.integers(0, 1000)), min_size=10, max_size=50))
def test_the_broker_hears_of_each_tag_once_and_what_was_meant(steps: list[tuple[str, int]]) -> None:
    ledger, broker = TagLedger(), Broker()
    open_tags: list[int] = []
    meant: dict[int, str] = {}
    last = 0

    def take() -> None:
        for said in ledger.take():
            broker.hear(said)
        assert broker.became == meant
        assert broker.unacked == set(open_tags)

    for step, choice in steps:
        if step == "deliver":
            first, last = last + 1, last + 1 + choice % 5
            for tag in range(first, last + 1):
                ledger.delivered(tag)
                broker.unacked.add(tag)
                open_tags.append(tag)
        elif step == "take":
            take()
        elif open_tags:
            tag = open_tags.pop(choice % len(open_tags))
            meant[tag] = step
            assert settle(ledger, step, tag)
    take()
    assert ledger.open == len(open_tags)


def test_a_run_of_deliveries_and_acks_is_as_one_by_one() -> None:
    ledger = TagLedger()
    ledger.delivered_run(2, 5)  # 1 went to somebody else on this channel
    ledger.delivered_run(6, 6)
    assert ledger.open == 6
    assert ledger.ack_all([3, 2, 3, 9]) == [True, True, False, False]
    assert ledger.take() == [Settlement("ack", 2), Settlement("ack", 3)]
    ledger = ledger_of(0)
    ledger.delivered_run(1, 4)
    assert ledger.ack_all([1, 2, 4]) == [True, True, True]
    assert ledger.take() == [Settlement("ack", 2, multiple=True), Settlement("ack", 4)]


def test_all_that_is_open_is_released_unless_some_of_it_is_somebody_elses() -> None:
    ledger = ledger_of(0)
    ledger.delivered_run(1, 3)
    ledger.ack(2)
    ledger.release_all()
    assert ledger.take() == [
        Settlement("nack", 1, requeue=True),
        Settlement("nack", 3, requeue=True),
        Settlement("ack", 2),
    ]
    assert ledger.open == 0
    strange = ledger_of(0)
    strange.delivered_run(2, 3)  # 1 went to somebody else, who may have settled it
    strange.release_all()
    assert strange.take() == []
