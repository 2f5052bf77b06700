"""What is told of an error, whatever it is made of."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pydantic
import pytest

from broadway_py import Failed, Message, ProducerError, Reject, SettleError, Unavailable
from broadway_py.error_text import (
    MOST_TEXT,
    clipped,
    complaints_of,
    described,
    place_of,
    shown_text,
    text_of,
)
from broadway_py.message import Plain, plain_reason, raised
from broadway_py.pipeline.publishing.calls import PublishUnavailable

CANARY = "canary-4711"


def caught(error: BaseException) -> BaseException:
    """With a traceback."""
    try:
        raise error
    except BaseException as one:  # noqa: BLE001  # to be looked at
        return one


def test_a_long_text_is_cut_and_what_is_missing_is_counted() -> None:
    assert clipped("abc", 3) == "abc"
    assert clipped("x" * 1_003, 3) == "xxx… (1,000 more characters)"
    assert len(text_of(ValueError("x" * 5_000_000))) < MOST_TEXT + 100


class Odd(Exception):
    """Says what the test wants."""

    said: Any = None

    def __str__(self) -> str:
        if isinstance(self.said, BaseException):
            raise self.said
        return self.said  # type: ignore[no-any-return]  # what is no text is what is tested


class Loud(str):
    """Text that does more than text does."""

    __slots__ = ()

    def __getitem__(self, _: Any) -> str:
        raise AssertionError("asked")

    def __str__(self) -> str:
        return CANARY


@pytest.mark.parametrize("said", [ValueError("no"), SystemExit(3), GeneratorExit(), 17, None], ids=repr)
def test_an_error_that_cannot_say_what_it_is_is_told_so(said: Any) -> None:
    error = Odd()
    error.said = said
    assert text_of(error) == "(its text cannot be shown)"
    assert raised(error).reason == "Odd: (its text cannot be shown)"
    assert described(error, with_text=True) == f"{__name__}.Odd: (its text cannot be shown)"


def test_what_looks_like_text_is_only_cut() -> None:
    error = Odd()
    error.said = Loud("y" * 10_000)
    assert text_of(error).startswith("y" * MOST_TEXT + "… (")


def test_nobody_asks_an_error_for_its_text_until_somebody_reads_the_reason() -> None:
    asked: list[int] = []

    class Slow(Exception):
        def __str__(self) -> str:
            asked.append(1)
            return "text"

    failed = raised(caught(Slow()))
    assert (failed.cause, plain_reason(failed), repr(failed)) == ("raised", None, "Failed(raised, Slow)")
    place_of(failed.exception or Slow())
    described(failed.exception or Slow(), with_text=False)
    assert not asked
    assert (failed.reason, failed.reason) == ("Slow: text", "Slow: text")
    assert len(asked) == 1


def test_a_reason_that_was_not_read_yet_is_like_any_other() -> None:
    error = ValueError("no good")
    assert raised(error) == Failed("raised", "ValueError: no good", error)
    again = pickle.loads(pickle.dumps(raised(error)))  # noqa: S301  # our own
    assert (again.cause, again.reason, str(again.exception)) == ("raised", "ValueError: no good", "no good")
    with pytest.raises(AttributeError, match="'Failed' object has no attribute 'other'"):
        raised(error).other  # noqa: B018  # that is the test
    with pytest.raises(AttributeError):
        raised(error).reason = "other"  # type: ignore[misc]  # frozen


def test_our_own_words_stay_ours_over_pickle_and_no_longer_when_something_was_added() -> None:
    own = Failed("timeout", Plain("too late"))
    again = pickle.loads(pickle.dumps(own))  # noqa: S301  # our own
    assert plain_reason(again) == "too late"
    assert plain_reason(Failed("timeout", f"{own.reason}: {CANARY}")) is None


class Item(pydantic.BaseModel):
    id: int
    price: float


def wrong(count: int) -> pydantic.ValidationError:
    body = json.dumps([{"id": f"x{n}", "price": f"{CANARY} {n}"} for n in range(count)])
    with pytest.raises(pydantic.ValidationError) as invalid:
        pydantic.TypeAdapter(list[Item]).validate_json(body)
    return invalid.value


def test_complaints_of_pydantic_are_told_by_place_and_kind() -> None:
    assert complaints_of(wrong(1), {"id", "price"}) == "0.id: int_parsing; 0.price: float_parsing"
    assert shown_text(wrong(1)) == "0.***: int_parsing; 0.***: float_parsing"
    assert complaints_of(wrong(10), {"id"}).endswith("2.id: int_parsing; …")


def test_keys_of_a_dict_are_data() -> None:
    with pytest.raises(pydantic.ValidationError) as invalid:
        pydantic.TypeAdapter(dict[str, int]).validate_python({CANARY: "x"})
    assert shown_text(invalid.value) == "***: int_parsing"


def test_of_very_many_complaints_only_the_number_is_told() -> None:
    error = wrong(20_000)
    began = time.thread_time()
    assert complaints_of(error) == "40,000 errors, too many to show any"
    assert text_of(error) == "40,000 validation errors of list[Item]"
    assert time.thread_time() - began < 0.05


def test_our_own_errors_are_told_but_not_what_handlers_say_with_them() -> None:
    class Mine(ProducerError):
        pass

    assert shown_text(ProducerError("the broker is away")) == "the broker is away"
    assert shown_text(Mine("the source is away")) == "the source is away"
    assert shown_text(SettleError("no room", unsettled=[])) == "no room"
    away = PublishUnavailable("the queue is full", unpublished=[CANARY])
    assert shown_text(away) == "the queue is full"
    assert shown_text(Unavailable(CANARY)) is None
    assert shown_text(Reject(CANARY)) is None
    assert shown_text(ValueError(CANARY)) is None
    assert CANARY not in described(caught(Reject(CANARY)), with_text=False)


def test_a_chain_without_end_and_a_circle_are_told_in_part() -> None:
    first = error = ValueError("0")
    for number in range(10_000):
        error.__cause__ = ValueError(str(number))
        error = error.__cause__
    assert described(first, with_text=True).count("caused by") == 10
    error.__cause__ = first
    assert described(error, with_text=True).count("caused by") == 10
    one, two = ValueError("1"), ValueError("2")
    one.__context__, two.__context__ = two, one
    assert described(one, with_text=True) == "ValueError: 1\ncaused by:\nValueError: 2"


def test_a_group_of_very_many_and_one_that_is_very_deep_are_told_in_part() -> None:
    wide = ExceptionGroup("wide", [ValueError(str(number)) for number in range(100_000)])
    assert len(described(wide, with_text=True)) < 2_000
    deep: Exception = ValueError("last")
    for _ in range(5_000):
        deep = ExceptionGroup("deep", [deep])
    assert len(described(deep, with_text=True)) < 2_000


def test_a_deep_stack_is_told_by_its_end() -> None:
    def down(left: int) -> None:
        if not left:
            raise ValueError
        down(left - 1)

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(6_000)
    try:
        with pytest.raises(ValueError) as info:  # noqa: PT011  # ours, a few lines above
            down(5_000)
    finally:
        sys.setrecursionlimit(before)
    began = time.thread_time()
    told, place = described(info.value, with_text=False), place_of(info.value)
    assert time.thread_time() - began < 0.2
    assert "more frames)" in told
    assert len(told) < 6_000
    assert place.count(" > ") == 3
    assert place.endswith(" down")


def test_the_place_names_the_users_own_code_also_where_a_library_raised_deep_inside() -> None:
    with pytest.raises(re.error) as info:
        re.compile("((((")
    places = place_of(info.value).split(" > ")
    assert places[0].startswith("test_error_text.py:")
    assert places[1] == "…"
    assert places[-1].startswith("_parser.py:")


def test_the_place_is_told_also_where_no_file_can_be_opened(tmp_path: Path) -> None:
    program = (
        "import resource\n"
        "from broadway_py.error_text import place_of\n"
        "def fail(): raise ValueError\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try: fail()\n"
        "except ValueError as error: print(place_of(error))\n"
    )
    file = tmp_path / "program.py"
    file.write_text(program)

    ran = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False, timeout=60)

    assert (ran.stdout, ran.stderr) == ("program.py:5 <module> > program.py:3 fail\n", "")


def test_a_name_without_end_is_cut() -> None:
    kind = type("E" * 100_000, (Exception,), {})
    assert len(repr(Failed("raised", "", kind()))) < 300
    assert len(described(kind(), with_text=False)) < 300
    assert len(repr(Message(b"", {"message_id": "i" * 100_000}))) < 400


def test_a_place_that_came_from_elsewhere_may_be_odd() -> None:
    class Hostile(Exception):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(CANARY)

    assert place_of(Hostile()) == ""
