"""How lists are packed for other processes, and who reads which range of a file."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from broadway_py._core.window.times import Stamped
from broadway_py.flow.failure import ElementPlace
from broadway_py.flow.frames import Frame, Origin
from broadway_py.flow.running.carried import Carrier, unpacked, variable_at_fault
from broadway_py.flow.stages.file_lines import FileRange
from broadway_py.flow.stages.file_turns import FileTurns, PipedRanges
from tests.flow.processes import works


def test_a_list_arrives_with_all_that_stands_beside_it() -> None:
    frame = Frame(
        ["a", b"b", bytearray(b"c")],
        partition=3,
        origin=Origin(1, 7),
        first=ElementPlace(1, 3_500),
        stamped=Stamped(["a"], 1, 2, [1.0], kind="seconds", keys=["k"]),
        high=9,
        side=1,
        is_last=True,
    )
    (found,) = unpacked(Carrier(to_program=False).packed([frame]))

    for name in ("elements", "partition", "origin", "first", "high", "side", "is_last"):
        assert getattr(found, name) == getattr(frame, name)
    assert type(found.elements[2]) is bytearray
    for name in ("events", "low", "high", "raw", "in_microseconds", "kind", "keys", "refused"):
        assert getattr(found.stamped, name) == getattr(frame.stamped, name)


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "elements",
    [
        [],
        [""],
        ["", ""],
        ["a", "", "ä"],
        ["a\0b", "c"],
        ["\0"],
        ["\ud800", "b"],
        ["a", 1],
        ["a", None],
        [Text("a"), "b"],
        ["a", "b"] * 10_000,
    ],
)
def test_a_list_of_texts_comes_out_as_it_was(elements: list[Any]) -> None:
    (found,) = unpacked(Carrier(to_program=False).packed([Frame(elements)]))

    assert [(type(each), each) for each in found.elements] == [(type(each), each) for each in elements]


def test_texts_go_over_as_one_text() -> None:
    # A list of a hundred texts takes some bytes for each of them.
    texts = Carrier(to_program=False).packed([Frame(["a"] * 100)])

    assert b"a\0a\0a" in texts


def test_what_comes_back_by_value_does_not_change_its_class() -> None:
    class Local:
        made = 0

    carrier = Carrier(to_program=True)
    before = carrier.packed([Frame([Local()])])
    Local.made = 5
    (found,) = unpacked(before)

    assert (type(found.elements[0]), Local.made) == (Local, 5)


def test_a_class_of_the_program_goes_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    main: Any = __import__("__main__")
    monkeypatch.setattr(main, "Given", type("Given", (), {"__module__": "__main__"}), raising=False)
    carrier, back = Carrier(to_program=False), Carrier(to_program=True)
    lists = [Frame([main.Given()])]
    first, second = carrier.packed(lists), carrier.packed(lists)

    assert [each[:1] for each in (first, second, back.packed(lists))] == [b"d", b"p", b"p"]
    assert type(unpacked(first)[0].elements[0]) is main.Given
    # A process that does not run the program has only what came.
    monkeypatch.delattr(main, "Given")
    unpacked(first)
    assert type(unpacked(second)[0].elements[0]) is main.Given


def test_an_element_that_does_not_pickle_raises_its_own_error() -> None:
    with pytest.raises(TypeError, match=r"cannot pickle '_thread\.lock' object"):
        Carrier(to_program=True).packed([Frame([threading.Lock()])])


class Holder:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def method(self, _: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (partial(works.both, threading.Lock()), "argument 0"),
        (partial(works.both, right=threading.Lock()), "right"),
        (Holder().method, "self"),
        (works.both, None),
    ],
)
def test_the_variable_is_found_that_does_not_pickle(function: object, name: str | None) -> None:
    assert variable_at_fault(function) == name


async def test_readers_take_turns_until_no_range_is_left() -> None:
    ranges = [FileRange("words.txt", start, start + 10) for start in range(0, 50, 10)]
    turns = FileTurns.new()
    one, other = PipedRanges(turns, ranges), PipedRanges(turns, ranges)

    taken = [await reader.next() for reader in (one, other, other, one, other, one, other)]

    assert taken == [*ranges, None, None]
    turns.close()
