"""What becomes of a delivery: it is new, it repeats one that was handled, or it waits for one that is at work."""

from __future__ import annotations

from collections.abc import Hashable

from broadway_py._core.deduplication.register import Register


class Delivery:
    def __init__(self, name: str, key: Hashable = None) -> None:
        self.name = name
        self.key = key

    def __repr__(self) -> str:
        return self.name


def identity(number: int) -> bytes:
    return number.to_bytes(16, "big")


A, B, C = identity(1), identity(2), identity(3)


def register(keep_s: float = 600.0, most: int = 1000) -> Register[Delivery]:
    return Register(keep_s=keep_s, most=most)


def in_order() -> Register[Delivery]:
    return Register(keep_s=600.0, key_of=lambda delivery: delivery.key)


def handle(register: Register[Delivery], number: int, one: bytes, connected_s: float = 0.0) -> None:
    assert register.admit(Delivery("first"), one) == "new"
    register.stored(number, one, connected_s)
    assert register.ended(one, is_handled=True) is None


# --- one id


def test_an_id_that_was_stored_is_a_repeat() -> None:
    known = register()
    handle(known, 1, A)

    assert known.admit(Delivery("again"), A) == "repeat"
    assert known.admit(Delivery("other"), B) == "new"
    assert known.duplicates == 1
    assert len(known) == 1


def test_an_id_that_failed_is_new_again() -> None:
    known = register()
    assert known.admit(Delivery("first"), A) == "new"

    assert known.ended(A, is_handled=False) is None

    assert known.admit(Delivery("second"), A) == "new"
    assert known.duplicates == 0


def test_a_message_without_an_id_is_always_new() -> None:
    known = register()

    assert [known.admit(Delivery("one"), None), known.admit(Delivery("two"), None)] == ["new", "new"]


def test_a_delivery_of_an_id_at_work_waits_and_is_a_repeat_when_that_one_was_handled() -> None:
    known = register()
    second, third = Delivery("second"), Delivery("third")
    known.admit(Delivery("first"), A)
    assert [known.admit(second, A), known.admit(third, A)] == ["waits", "waits"]
    assert known.waiting == 2

    known.stored(1, A, 0.0)
    released = known.ended(A, is_handled=True)

    assert released is not None
    assert (released.repeats, released.new) == ([second, third], [])
    assert (known.duplicates, known.waiting) == (2, 0)


def test_a_waiting_delivery_is_handled_when_the_first_one_failed_and_the_next_waits_for_it() -> None:
    known = register()
    second, third = Delivery("second"), Delivery("third")
    known.admit(Delivery("first"), A)
    known.admit(second, A)
    known.admit(third, A)

    released = known.ended(A, is_handled=False)

    assert released is not None
    assert (released.repeats, released.new) == ([], [(second, A)])
    assert known.admit(Delivery("fourth"), A) == "waits"
    assert known.waiting == 2


def test_what_is_stored_is_a_repeat_although_its_ack_failed() -> None:
    known = register()
    second = Delivery("second")
    known.admit(Delivery("first"), A)
    known.admit(second, A)

    known.stored(1, A, 0.0)
    released = known.ended(A, is_handled=False)

    assert released is not None
    assert released.repeats == [second]


def test_what_was_handled_and_is_stored_elsewhere_makes_repeats_of_those_that_wait_and_of_no_others() -> None:
    """As an aggregator does, which knows its own messages again."""
    known = register()
    second = Delivery("second")
    known.admit(Delivery("first"), A)
    known.admit(second, A)

    released = known.ended(A, is_handled=True)

    assert released is not None
    assert released.repeats == [second]
    assert known.admit(Delivery("later"), A) == "new"


def test_what_is_withdrawn_is_not_released() -> None:
    known = register()
    second, third = Delivery("second"), Delivery("third")
    known.admit(Delivery("first"), A)
    known.admit(second, A)
    known.admit(third, A)

    known.withdraw([second])
    released = known.ended(A, is_handled=False)

    assert released is not None
    assert released.new == [(third, A)]


# --- keys


def test_a_message_of_a_key_waits_behind_one_that_waits() -> None:
    known = in_order()
    again, behind, elsewhere = Delivery("again", "k"), Delivery("behind", "k"), Delivery("elsewhere", "other")
    assert known.admit(Delivery("first", "k"), A) == "new"
    assert known.admit(Delivery("before", "k"), C) == "new"

    assert known.admit(again, A) == "waits"
    assert known.admit(behind, B) == "waits"
    assert known.admit(elsewhere, identity(9)) == "new"

    released = known.ended(A, is_handled=False)
    assert released is not None
    assert released.new == [(again, A), (behind, B)]
    assert known.admit(Delivery("after", "k"), identity(4)) == "new"


def test_a_message_behind_one_of_its_key_goes_on_when_that_one_is_a_repeat() -> None:
    known = in_order()
    again, behind, nameless = Delivery("again", "k"), Delivery("behind", "k"), Delivery("nameless", "k")
    known.admit(Delivery("first", "k"), A)
    known.admit(again, A)
    assert known.admit(behind, B) == "waits"
    assert known.admit(nameless, None) == "waits"

    released = known.ended(A, is_handled=True)

    assert released is not None
    assert (released.repeats, released.new) == ([again], [(behind, B), (nameless, None)])


def test_a_message_that_waits_behind_another_may_then_wait_for_its_own_id() -> None:
    known = in_order()
    again, other = Delivery("again", "k"), Delivery("other", "k")
    known.admit(Delivery("first", "k"), A)
    known.admit(Delivery("of another id", "k"), B)
    known.admit(again, A)
    assert known.admit(other, B) == "waits"

    released = known.ended(A, is_handled=True)
    assert released is not None
    assert (released.repeats, released.new) == ([again], [])
    assert known.admit(Delivery("behind", "k"), C) == "waits"

    released = known.ended(B, is_handled=True)
    assert released is not None
    assert released.repeats == [other]
    assert [delivery.name for delivery, _ in released.new] == ["behind"]


def test_nothing_waits_behind_a_message_without_a_key() -> None:
    known = in_order()
    known.admit(Delivery("first"), A)
    assert known.admit(Delivery("again"), A) == "waits"

    assert known.admit(Delivery("other"), B) == "new"


def test_nothing_waits_behind_a_key_whose_messages_were_all_withdrawn() -> None:
    known = in_order()
    again = Delivery("again", "k")
    known.admit(Delivery("first", "k"), A)
    known.admit(again, A)

    known.withdraw([again])

    assert known.admit(Delivery("other", "k"), B) == "new"


# --- time and room


def test_an_id_is_forgotten_when_its_time_is_over() -> None:
    known = register(keep_s=64.0)
    handle(known, 1, A, 0.0)
    handle(known, 2, B, 10.0)

    assert known.forget(63.0) == 1
    assert known.admit(Delivery("in time"), A) == "repeat"
    assert known.forget(64.0) == 2
    assert known.admit(Delivery("too late"), A) == "new"
    assert known.admit(Delivery("in time"), B) == "repeat"


def test_the_oldest_ids_are_forgotten_for_want_of_room_and_the_horizon_says_so() -> None:
    known = register(keep_s=64.0, most=2)
    assert known.horizon_s(0.0) == 64.0
    for number, one in enumerate((A, B, C), 1):
        handle(known, number, one, float(number) * 2)

    assert known.admit(Delivery("forgotten"), A) == "new"
    assert [known.admit(Delivery("kept"), one) for one in (B, C)] == ["repeat", "repeat"]
    assert known.forget(6.0) == 2
    assert known.horizon_s(6.0) == 4.0


def test_a_restart_goes_on_with_the_ids_and_the_time() -> None:
    before = register(keep_s=64.0)
    handle(before, 1, A, 10.0)
    handle(before, 2, B, 20.0)

    after = register(keep_s=64.0)
    assert after.restore(before.memory(20.0), 2) == 20.0
    after.load([(1, A), (2, B)])

    assert [after.admit(Delivery("again"), one) for one in (A, B, C)] == ["repeat", "repeat", "new"]
    assert after.forget(74.0) == 2
    assert after.admit(Delivery("too late"), A) == "new"
