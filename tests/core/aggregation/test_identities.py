"""Which messages of an aggregator are the same, and what becomes of those that come again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from broadway_py import Message
from broadway_py._core.aggregation.identities import Identities, Sorted
from broadway_py._core.ledger import Ledger, LedgerEntry, runs_of
from broadway_py.acknowledger import NoopAcknowledger
from broadway_py.message import Acknowledgement, Spawned


class Marking(NoopAcknowledger):
    """Its messages are marked by their acknowledgement data."""

    def is_repeat(self, data: Any) -> bool:
        return bool(data)


ENTRIES = {name: LedgerEntry(Ledger(name), 0.0) for name in ("sqs", "rabbitmq", "submitted")}
MARKS = Marking()


def message(name: object = "m1", *, of: str = "rabbitmq", marked: bool = False, data: Any = b"payload") -> Message[Any]:
    metadata = {} if name is None else {"message_id": name}
    made = Message(data, metadata, Acknowledgement(MARKS, None, marked))
    made._ledger_entry = ENTRIES[of]
    return made


def child(parent: Message[Any], number: int) -> Message[Any]:
    made: Message[Any] = Message("part")
    made._acknowledgement = Acknowledgement(NoopAcknowledger(), None, Spawned(parent, number))
    # The children of a message have an entry of their own.
    made._ledger_entry = LedgerEntry(Ledger(parent.producer or ""), 0.0)
    return made


def failure(message: Message[Any]) -> tuple[str, str]:
    assert message.status is not None
    return message.status.cause, message.status.reason


def identities(**options: Any) -> Identities:
    return Identities("revenue", looked_up={"sqs"}, marking={"rabbitmq"}, **options)


def only_marked(**options: Any) -> Identities:
    return Identities("revenue", looked_up=(), marking={"rabbitmq"}, **options)


def came(known: Identities, *messages: Message[Any], file: Sequence[bytes] = ()) -> Sorted:
    """They come to the aggregator, and the new ones are added."""
    identified = known.identify(messages)
    found = identified.wanted & set(file)
    result = known.sort(identified, found)
    known.hold(result)
    return result


def one_checkpoint(known: Identities, number: int = 1) -> bytes:
    stored = known.begin(number)
    known.committed()
    return stored


# --- the identity


def test_each_delivery_has_the_same_identity_and_another_message_another() -> None:
    of = identities().of

    first = of(message("m1"))

    assert first is not None
    assert len(first) == 16
    assert of(message("m1", marked=True)) == first
    others = [
        message("m2"),
        message("m1", of="sqs"),
        message("m1", data=b"another"),
        message("m1", data=b"payload" * 300),
        message(None),
        message("", data=b"payload"),
        message(1.5),
    ]
    assert len({first, *(of(other) for other in others)}) == 1 + 4 + 1
    assert [of(other) for other in others[4:]] == [None] * 3


def test_children_are_named_by_their_parent_and_their_number() -> None:
    of = identities().of
    parent, again, nameless = message("m1"), message("m1", marked=True), message(None)

    names = [of(child(parent, number)) for number in range(3)]

    assert len({of(parent), *names}) == 4
    assert [of(child(again, number)) for number in range(3)] == names
    assert of(child(nameless, 0)) is None


def test_an_identity_of_the_user_holds_for_all_producers() -> None:
    known = identities(identity=lambda message: message.data)

    assert known.of(message("m1", data="order 7")) == known.of(message("m2", of="sqs", data="order 7"))
    assert known.of(message(data="7")) != known.of(message(data=b"7"))
    assert known.of(message(data=None)) is None
    assert known.of(message(data="")) is None


def test_a_message_fails_alone_if_the_users_identity_raises_or_returns_something_else() -> None:
    known = identities(identity=lambda message: message.data["id"])
    fine, raising, wrong = message(data={"id": "7"}), message(data={}), message(data={"id": 7.5})

    identified = known.identify([raising, fine, wrong])

    assert identified.messages == [fine]
    assert identified.failed == [raising, wrong]
    assert failure(raising) == ("raised", "KeyError: 'id'")
    sentence = (
        "revenue: identity() returned a float; expected text or bytes, the same for each delivery of the message, or "
        "None for a message without an identity"
    )
    assert failure(wrong) == ("raised", f"DefinitionError: {sentence}")


def test_a_message_without_an_identity_is_added_and_counted() -> None:
    known = identities()
    first, again, retried = message(None), message(None, marked=True), message(None, of="sqs")
    retried.attempt = 2

    result = came(known, first, again, retried)

    assert (result.new, result.identities) == ([first, again, retried], [None, None, None])
    assert (known.without_identity, known.uncertain, known.duplicates) == (3, 2, 0)
    assert one_checkpoint(known) == b""

    came(known, message(None, of="submitted"))
    assert (known.without_identity, known.uncertain) == (3, 2), "it is never delivered again"


def test_a_message_without_an_identity_fails_where_one_is_required() -> None:
    known = identities(required=True)
    named, nameless = message("m1"), message(None)

    identified = known.identify([nameless, named])

    assert (identified.messages, identified.failed) == ([named], [nameless])
    sentence = (
        "aggregator revenue requires an identity (require_identity), and this message has none: have its publisher set "
        "a message id, or write identity(message)"
    )
    assert failure(nameless) == ("invalid", sentence)
    assert (known.without_identity, known.uncertain) == (1, 0)


# --- which ones are looked up


def test_unmarked_messages_of_a_source_that_marks_are_new_without_a_look() -> None:
    known = only_marked()
    one_of_two, other = message("m1"), message("m1")

    first, second = came(known, one_of_two), came(known, other)

    assert (first.new, second.new) == ([one_of_two], [other])
    assert (known.in_memory, known.duplicates) == (False, 0)


def test_a_marked_message_is_looked_for_in_the_file() -> None:
    known = only_marked()
    stored = known.of(message("m1"))
    assert stored is not None
    known_one, unknown_one = message("m1", marked=True), message("m2", marked=True)

    identified = known.identify([known_one, message("m3"), unknown_one])
    assert identified.wanted == {stored, known.of(unknown_one)}
    result = known.sort(identified, {stored})

    assert (result.of_committed, [each.id for each in result.new]) == ([known_one], ["m3", "m2"])
    assert known.duplicates == 1


def test_children_of_a_marked_parent_are_looked_for() -> None:
    known = only_marked()
    parent = message("m1", marked=True)
    parts = [child(parent, number) for number in range(2)]

    assert known.identify(parts).wanted == {known.of(part) for part in parts}


def test_an_acknowledger_that_cannot_tell_costs_a_look() -> None:
    known = only_marked()
    strange = message("m1")
    strange._acknowledgement = Acknowledgement(object())

    assert known.identify([strange]).wanted == {known.of(strange)}


def test_nothing_of_a_producer_that_never_delivers_again_is_looked_up() -> None:
    known = identities()
    messages = [message("m1", of="submitted", marked=True) for _ in range(2)]

    assert came(known, *messages).new == messages


def test_every_message_of_other_sources_is_looked_up_in_memory() -> None:
    known = identities()
    first = message("m1", of="sqs")
    came(known, first)
    assert known.in_memory

    of_held = message("m1", of="sqs")
    assert came(known, of_held).of_held == [of_held]
    known.begin(1)
    of_running = message("m1", of="sqs")
    assert came(known, of_running).of_running == [of_running]
    known.committed()
    of_committed = message("m1", of="sqs")
    identified = known.identify([of_committed])
    assert identified.wanted == set()
    assert known.sort(identified).of_committed == [of_committed]
    assert known.duplicates == 3


# --- repeats of what is held


def test_a_repeat_of_a_held_message_waits_for_its_checkpoint() -> None:
    known = only_marked()
    came(known, message("m1"))
    again = message("m1", marked=True)

    identified = known.identify([again])
    assert identified.wanted == set(), "the file need not be asked"
    assert known.sort(identified).of_held == [again]

    known.begin(1)
    assert came(known, again).of_running == [again]
    known.not_committed()
    assert came(known, again).of_held == [again]


def test_what_becomes_durable_while_the_file_is_asked_is_not_added_again() -> None:
    known = only_marked()
    came(known, message("m1"))
    again = message("m1", marked=True)
    identified = known.identify([again, message("m2", marked=True)])

    one_checkpoint(known)

    assert known.sort(identified, set()).of_committed == [again]


def test_a_slow_first_delivery_is_recognised_after_its_repeat() -> None:
    """The copy was lost while a handler had the message. Its repeat was handled faster."""
    known = only_marked()
    came(known, message("m1", marked=True))
    slow = message("m1")
    assert came(known, slow).of_held == [slow]
    known.begin(1)
    assert came(known, slow).of_running == [slow]
    known.committed()
    assert came(known, slow).of_committed == [slow]
    assert came(known, message("m2")).of_committed == []

    known.acked(1, 0.0)
    known.forget(600.0)
    assert came(known, slow).new == [slow]


def test_a_slow_first_delivery_is_recognised_beside_a_source_that_is_looked_up() -> None:
    known = identities()
    came(known, message("m1", marked=True))
    one_checkpoint(known)
    slow = message("m1")

    assert came(known, slow).of_committed == [slow]


@pytest.mark.parametrize(("first", "second"), [(False, True), (True, False), (True, True)])
def test_two_deliveries_in_one_list_are_sorted_one_after_the_other(first: bool, second: bool) -> None:
    known = only_marked()
    one, two = message("m1", marked=first), message("m1", marked=second)

    result = known.sort(known.identify([one, two]))

    assert result.new == [one]
    assert result.later is not None
    assert result.later.messages == [two]
    known.hold(result)
    assert known.sort(result.later).of_held == [two]


def test_a_repeat_of_a_message_that_was_not_added_is_new() -> None:
    known = only_marked()
    one, two, other = message("m1"), message("m1", marked=True), message("m2")

    result = known.sort(known.identify([one, other, two]))
    known.hold(result, [one])

    assert result.later is not None
    again = known.sort(result.later)
    assert (again.new, again.later) == ([two], None)
    known.hold(again, [two])
    name = known.of(other)
    assert one_checkpoint(known) == name


def test_what_has_failed_after_it_was_held_is_new_again() -> None:
    known = only_marked()
    first = message("m1", marked=True)
    came(known, first, message("m2", marked=True))

    known.let_go([first, message(None)])

    again = came(known, message("m1", marked=True), message("m2", marked=True))
    assert (len(again.new), len(again.of_held)) == (1, 1)


# --- how long


def test_a_checkpoint_has_the_identities_that_were_held() -> None:
    known = only_marked()
    came(known, message("m1"), message(None), message("m2", marked=True))
    stored = known.begin(1)
    came(known, message("m3"))

    names = [known.of(message(name)) for name in ("m1", "m2")]
    assert sorted([stored[:16], stored[16:]]) == sorted(name for name in names if name)
    known.committed()
    assert known.begin(2) == known.of(message("m3"))


def test_identities_are_kept_for_their_time_after_the_ack() -> None:
    known = identities(keep_s=100.0)
    came(known, message("m1", of="sqs"))
    one_checkpoint(known)
    assert known.forget(1e6) == 1, "not acked"

    known.acked(1, 50.0)

    assert known.forget(149.0) == 1
    assert len(came(known, message("m1", of="sqs")).of_committed) == 1
    assert known.forget(150.0) == 2
    assert len(came(known, message("m1", of="sqs")).new) == 1


def test_when_there_is_no_room_the_horizon_is_nearer() -> None:
    known = Identities("revenue", looked_up={"sqs"}, marking=(), keep_s=100.0, most=2)
    for number in range(1, 4):
        came(known, message(f"m{number}", of="sqs"))
        one_checkpoint(known, number)
        known.acked(number, number * 10.0)
        assert known.horizon_s(number * 10.0) == (100.0 if number < 3 else 20.0)

    assert len(came(known, message("m1", of="sqs")).new) == 1
    assert known.horizon_s(60.0) == 50.0
    assert known.forget(60.0) == 2, "the file need not keep what is never looked for there"
    known.forget(110.0)
    assert known.horizon_s(110.0) == 100.0


def test_the_file_keeps_what_memory_has_no_room_for_if_it_is_asked() -> None:
    known = identities(most=1)
    for number in (1, 2):
        came(known, message(f"m{number}", of="sqs"))
        one_checkpoint(known, number)

    assert known.forget(0.0) == 1


def test_after_a_restart_all_is_known_as_long_as_before() -> None:
    before = identities(keep_s=100.0)
    came(before, message("m1", of="sqs"))
    first = one_checkpoint(before, 1)
    before.acked(1, 5.0)
    came(before, message("m2", of="sqs"))
    second = before.begin(2)
    memory = json.loads(json.dumps(before.memory(30.0)))

    known = identities(keep_s=100.0)
    assert known.restore(memory, 2) == 30.0
    known.load(1, first)
    known.load(2, second)

    assert len(came(known, message("m1", of="sqs"), message("m2", of="sqs")).of_committed) == 2
    assert known.forget(104.0) == 1
    assert known.forget(105.0) == 2
    assert known.forget(129.0) == 2
    assert known.forget(130.0) == 3


def test_the_memory_stays_small() -> None:
    known = only_marked()
    for number in range(1, 20_000):
        known.acked(number, 1e6 + number / 10)
        known.forget(1e6 + number / 10)

    assert len(json.dumps(known.memory(1e6))) < 3_000


def test_the_runs_of_new_messages_are_known_if_none_was_sorted_out() -> None:
    messages = [message("m1"), message("m2"), message("m3", of="submitted")]

    assert came(only_marked(), *messages).runs == runs_of(messages)
    assert came(only_marked(required=True), *messages, message(None, of="submitted")).runs is None
    assert came(only_marked(), *messages, message("m1", marked=True)).runs is None
