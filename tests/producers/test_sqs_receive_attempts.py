from __future__ import annotations

from broadway_py.producers.sqs.deliveries.receive_attempts import Attempts


def test_each_receive_of_a_fifo_queue_has_a_name_of_its_own_until_one_is_lost() -> None:
    attempts = Attempts(is_fifo=True)
    first = attempts.begin(10, 0.0, 30.0)
    second = attempts.begin(10, 0.0, 30.0)
    assert first.id is not None
    assert second.id not in {None, first.id}
    attempts.lost(first)
    assert attempts.begin(3, 5.0, 30.0) == first  # and as many messages as before
    assert attempts.begin(3, 5.0, 30.0).id not in {first.id, second.id}


def test_what_is_lost_again_is_asked_for_again() -> None:
    attempts = Attempts(is_fifo=True)
    first, second = attempts.begin(10, 0.0, 30.0), attempts.begin(10, 1.0, 30.0)
    attempts.lost(second)
    attempts.lost(first)
    assert attempts.begin(1, 10.0, 30.0) == second
    attempts.lost(second)
    assert [attempts.begin(1, 20.0, 30.0) for _ in range(2)] == [first, second]


def test_a_lost_receive_is_not_asked_for_again_when_others_may_have_its_messages() -> None:
    attempts = Attempts(is_fifo=True)
    for visibility_s, late in ((30.0, 30.0), (43_200.0, 300.0), (0.0, 0.0)):
        lost = attempts.begin(10, 0.0, visibility_s)
        attempts.lost(lost)
        fresh = attempts.begin(4, late, visibility_s)
        assert fresh.id != lost.id
        assert (fresh.asked, fresh.began_at) == (4, late)


def test_receives_of_a_standard_queue_have_no_name() -> None:
    attempts = Attempts(is_fifo=False)
    attempts.lost(attempts.begin(10, 0.0, 30.0))
    assert attempts.begin(3, 1.0, 30.0) == (None, 3, 1.0)


def test_no_more_lost_receives_are_remembered_than_help() -> None:
    attempts = Attempts(is_fifo=True)
    lost = [attempts.begin(1, 0.0, 30.0) for _ in range(150)]
    for attempt in lost:
        attempts.lost(attempt)
    assert attempts.begin(1, 1.0, 30.0) == lost[50]
