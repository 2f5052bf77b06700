"""Lists of a source, in whatever order they come, are worked on in the order that the source gave them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py._core.window.times import Stamped
from broadway_py.flow.frames import Frame, Origin
from broadway_py.flow.stages.cutting import cut
from broadway_py.flow.stages.order import Ordered, merged


def frame(source: int, number: int, elements: list[int] | None = None) -> Frame:
    return Frame([number] if elements is None else elements, origin=Origin(source, number))


@settings(max_examples=40)
@given(st.data())
def test_lists_that_several_senders_share_come_out_in_their_order_and_are_asked_for_where_they_are(
    data: st.DataObject,
) -> None:
    senders, sources, count = 3, 2, 12
    # Which sender has which number; each sends them in ascending order.
    of_sender: list[list[Frame]] = [[] for _ in range(senders)]
    for source in range(sources):
        for number in range(count):
            of_sender[data.draw(st.integers(0, senders - 1))].append(frame(source, number))
    ordered: Ordered[int] = Ordered(dict.fromkeys(range(sources), 1), range(senders), chunk=100)
    came: dict[int, list[int]] = {source: [] for source in range(sources)}

    while any(of_sender):
        sender = data.draw(st.sampled_from([place for place, left in enumerate(of_sender) if left]))
        for released in ordered.add(of_sender[sender].pop(0), sender):
            assert released.frame.origin is not None
            came[released.frame.origin.source].append(released.frame.origin.number)
        for source, numbers in came.items():
            missing = len(numbers)
            has_it = [
                place for place, left in enumerate(of_sender) for each in left if each.origin == Origin(source, missing)
            ]
            # What is missing is asked for, however much of its sender waits.
            if ordered.waiting and any(number > missing for number in _waiting(ordered, source)):
                assert all(ordered.may_send_missing(place) for place in has_it)

    assert came == {source: list(range(count)) for source in range(sources)}
    assert ordered.waiting == 0


def _waiting(ordered: Ordered[int], source: int) -> list[int]:
    return [number for number, _ in ordered._sources[source].waiting]


@settings(max_examples=30)
@given(st.data())
def test_a_number_with_parts_comes_out_when_all_parts_are_there_in_the_order_of_the_senders(
    data: st.DataObject,
) -> None:
    senders, count = 3, 6
    left = {place: [frame(7, number, [number * 10 + place]) for number in range(count)] for place in range(senders)}
    ordered: Ordered[int] = Ordered({7: senders}, range(senders), chunk=100)
    came: list[list[int]] = []
    asked: list[tuple[int, ...]] = []

    while any(left.values()):
        sender = data.draw(st.sampled_from([place for place, frames in left.items() if frames]))
        for released in ordered.add(left[sender].pop(0), sender):
            came.append(released.frame.elements)
            asked.append(released.senders)

    assert came == [[number * 10 + place for place in range(senders)] for number in range(count)]
    assert asked == [(0, 1, 2)] * count


def pieces_of(whole: Frame, most: list[int]) -> list[Frame]:
    """Cuts a list, and then its pieces, as layers after one another do."""
    frames = [whole]
    for each in most:
        frames = [piece for one in frames for piece in cut(one, each)]
    return frames


@settings(max_examples=60)
@given(st.data(), st.lists(st.integers(1, 6), max_size=3))
def test_pieces_that_several_senders_share_come_out_in_their_order_as_soon_as_it_is_their_turn(
    data: st.DataObject, most: list[int]
) -> None:
    senders = 3
    sizes = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    lists = [frame(0, number, [number * 10 + each for each in range(size)]) for number, size in enumerate(sizes)]
    pieces = [piece for each in lists for piece in pieces_of(each, most)]
    sender_of: dict[int, int] = {}
    of_sender: list[list[Frame]] = [[] for _ in range(senders)]
    for piece in pieces:
        sender_of[id(piece)] = sender = data.draw(st.integers(0, senders - 1))
        of_sender[sender].append(piece)
    ordered: Ordered[int] = Ordered({0: 1}, range(senders), chunk=100)
    added: set[int] = set()
    came: list[Frame] = []

    while any(of_sender):
        sender = data.draw(st.sampled_from([place for place, left in enumerate(of_sender) if left]))
        added.add(id(of_sender[sender][0]))
        came += [released.frame for released in ordered.add(of_sender[sender].pop(0), sender)]
        turn = next((place for place, piece in enumerate(pieces) if id(piece) not in added), len(pieces))
        assert came == pieces[:turn]
        # What is missing is asked for where it is, and from nobody who has sent what comes behind it.
        if ordered.waiting:
            assert [ordered.may_send_missing(place) for place in range(senders)] == [
                not any(id(piece) in added for piece in pieces[turn:] if sender_of[id(piece)] == place)
                for place in range(senders)
            ]

    assert came == pieces


@settings(max_examples=40)
@given(st.data(), st.lists(st.integers(1, 6), max_size=2), st.integers(1, 4))
def test_parts_in_pieces_come_out_together_in_lists_that_are_short_enough(
    data: st.DataObject, most: list[int], chunk: int
) -> None:
    senders = 2
    sizes = data.draw(st.lists(st.tuples(*[st.integers(0, 7)] * senders), min_size=1, max_size=4))
    left = {
        place: [
            piece
            for number, counts in enumerate(sizes)
            for piece in pieces_of(
                frame(7, number, [number * 100 + place * 10 + n for n in range(counts[place])]), most
            )
        ]
        for place in range(senders)
    }
    sent = {place: len(frames) for place, frames in left.items()}
    # By piece, and then by sender.
    in_order = sorted(
        (each.origin.place if each.origin else (), place, each.elements)
        for place, frames in left.items()
        for each in frames
    )
    ordered: Ordered[int] = Ordered({7: senders}, range(senders), chunk)
    came: list[Frame] = []
    asked: list[int] = []

    while any(left.values()):
        sender = data.draw(st.sampled_from([place for place, frames in left.items() if frames]))
        for released in ordered.add(left[sender].pop(0), sender):
            came.append(released.frame)
            asked += released.senders
        if ordered.waiting:
            assert any(ordered.may_send_missing(place) for place, frames in left.items() if frames)

    assert [each for one in came for each in one.elements] == [each for _, _, part in in_order for each in part]
    assert max(len(one.elements) for one in came) <= chunk
    assert {place: asked.count(place) for place in range(senders)} == sent
    assert [one.origin.is_end for one in came if one.origin is not None].count(True) == len(sizes)
    assert ordered.waiting == 0


def test_the_time_of_a_piece_makes_no_later_one_late() -> None:
    stamped = Stamped([3, 1, 9, 2], 1, 9, [3, 1, 9, 2], in_microseconds=True, kind="datetime")
    whole = Frame([3, 1, 9, 2], partition=2, origin=Origin(0, 4), stamped=stamped, high=11, side=1, is_last=True)

    pieces = cut(whole, 3)

    assert [piece.elements for piece in pieces] == [[3, 1, 9], [2]]
    assert [piece.stamped and (piece.stamped.low, piece.stamped.high) for piece in pieces] == [(1, 9), (2, 2)]
    assert [piece.high for piece in pieces] == [None, 11]
    assert [piece.is_last for piece in pieces] == [False, True]
    assert [(piece.partition, piece.side) for piece in pieces] == [(2, 1)] * 2
    assert [piece.origin for piece in pieces] == [Origin(0, 4, ((0, 2),)), Origin(0, 4, ((1, 2),))]


def test_a_list_of_a_source_that_is_in_order_anyway_is_not_held_up() -> None:
    ordered: Ordered[str] = Ordered({0: 1}, "ab", chunk=100)

    (of_another,) = ordered.add(frame(5, 3), "a")
    (without_order,) = ordered.add(Frame([1]), "b")

    assert (of_another.frame.elements, of_another.senders) == ([3], ("a",))
    assert without_order.frame.elements == [1]
    assert list(ordered.add(frame(0, 1), "a")) == []
    assert not ordered.may_send_missing("a")
    assert ordered.may_send_missing("b")


def test_parts_with_event_times_are_put_in_the_order_of_these_times() -> None:
    def part(times: list[int], keys: list[str]) -> Frame:
        stamped = Stamped(times, min(times), max(times), times, in_microseconds=True, kind="datetime", keys=keys)
        return Frame(list(times), origin=Origin(0, 4), stamped=stamped, high=max(times), is_last=True)

    whole = merged([part([1, 30], ["a", "b"]), part([20, 2], ["c", "d"]), Frame([], origin=Origin(0, 4), high=9)])

    assert whole.stamped is not None
    assert list(whole.stamped.events) == [1, 2, 20, 30]
    assert list(whole.stamped.keys or ()) == ["a", "d", "c", "b"]
    assert (whole.stamped.low, whole.stamped.high, whole.high) == (1, 30, 30)
    assert whole.stamped.kind == "datetime"
    assert (whole.elements, whole.origin, whole.is_last) == ([1, 30, 20, 2], Origin(0, 4), True)


def test_times_in_seconds_are_merged_as_well() -> None:
    parts = [Frame([each], stamped=Stamped([each], each * 10**6, each * 10**6, [each])) for each in (2, 1)]

    whole = merged(parts)

    assert whole.stamped is not None
    assert (list(whole.stamped.events), whole.stamped.times()) == ([1, 2], [1_000_000, 2_000_000])
