"""The stable hash of keys."""

from __future__ import annotations

import enum
import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from broadway_py.flow.keys import KeyHashes


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Size(enum.IntEnum):
    SMALL = 1


class Name(enum.StrEnum):
    ANNA = "anna"


Point = namedtuple("Point", "x y")  # noqa: PYI024  # a plain named tuple is a tuple
BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def hash_of(key: Any) -> int:
    return KeyHashes(in_one_process=False).hash_of(key)


@pytest.mark.parametrize(
    "equal",
    [
        (1, 1.0, True, Size.SMALL, Decimal(1), Fraction(1), 1 + 0j),
        (0, 0.0, -0.0, False),
        (0.5, Decimal("0.5"), Fraction(1, 2)),
        ("anna", Name.ANNA),
        ((1, "a"), (1.0, "a"), (True, "a")),
        ((1, 2), Point(1, 2)),
        (NOON, NOON.astimezone(timezone(timedelta(hours=3)))),
        (datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN), datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)),
        (datetime(2026, 1, 1), datetime(2026, 1, 1, fold=1)),  # noqa: DTZ001
    ],
)
def test_equal_keys_have_the_same_hash(equal: tuple[Any, ...]) -> None:
    assert len(set(equal)) == 1
    assert len(set(map(hash_of, equal))) == 1


def test_keys_that_look_alike_have_other_hashes() -> None:
    moments = [NOON, datetime(2026, 1, 1, 12), date(2026, 1, 1), "2026-01-01"]  # noqa: DTZ001
    numbers = [1, 1.5, -1, -2, 0.1, 2**61, 10**5000, float("inf"), float("-inf"), float("nan")]
    tuples = [(), (None,), ("",), (1,), ((1,),), (1, 2), (2, 1), ("a", "b"), ("ab", "")]
    others = ["1", b"1", None, "", b"", "None", Colour.RED, Colour.BLUE, "Colour.RED", UUID(int=1), UUID(int=1).bytes]
    alike = [*moments, *numbers, *tuples, *others]
    assert len(set(map(hash_of, alike))) == len(alike)


def test_each_nan_has_the_same_hash() -> None:
    assert hash_of(float("nan")) == hash_of(float("inf") - float("inf"))


KEYS = "['a', b'a', 'ä\\udc80', 7, 0.1, None, True, (1, 'x', None), __import__('datetime').date(2026, 1, 2)]"


def test_the_hash_is_the_same_in_another_process() -> None:
    program = f"from broadway_py.flow.keys import *; print([*map(KeyHashes(in_one_process=False).hash_of, {KEYS})])"
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"}
    ).stdout
    assert shown.strip() == str(list(map(hash_of, eval(KEYS))))  # noqa: S307  # the text stands above


def test_the_hash_does_not_change_with_the_version() -> None:
    assert list(map(hash_of, ["a", 1, None, ("a", 1)])) == [2138990852, 3449840704, 4108050209, 1913180903]


def test_a_key_of_another_type_is_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError) as caught:
        hash_of(("a", frozenset({1})))
    assert str(caught.value) == (
        "expected a key of which each process has the same hash (text, bytes, a number, a UUID, a date, a datetime, an "
        "Enum, None, or a tuple of them), got a frozenset: return one of these from the key function, such as a field "
        "or the text of the key"
    )


@pytest.mark.parametrize("in_one_process", [True, False])
def test_a_key_that_is_not_hashable_is_refused(in_one_process: bool) -> None:
    with pytest.raises(TypeError) as caught:
        KeyHashes(in_one_process=in_one_process).hash_of(("a", [1]))
    assert str(caught.value) == (
        "expected a key such as text, bytes, a number, a UUID, a date, a datetime, an Enum, None, or a tuple of them, "
        "got a tuple, which is not hashable (TypeError: unhashable type: 'list')"
    )


def test_in_one_process_any_hashable_key_is_taken() -> None:
    @dataclass(frozen=True)
    class Key:
        name: str

    hashes = KeyHashes(in_one_process=True)
    assert hashes[Key("a")] == hash(Key("a")) % 2**32
    assert hashes[Key("a"), 1] == hashes.hash_of((Key("a"), 1)) != hashes[Key("b"), 1]
    assert hashes["a"] == hash_of("a")


def test_a_bounded_number_of_keys_is_remembered() -> None:
    hashes = KeyHashes(in_one_process=False)
    first = hashes[0]
    sizes = set()
    for key in range(250_000):
        hashes[key]
        sizes.add(len(hashes))
    assert max(sizes) == 100_000
    assert hashes[0] == first


@pytest.mark.parametrize("keys", [["a", "ä", "", "a" * 1_000], ["a", "\ud800"], ["a", 1, None], [], [3]])
@pytest.mark.parametrize("modulus", [2**32, 7])
def test_new_keys_have_the_same_hashes_as_others(keys: list[Any], modulus: int) -> None:
    hashes = KeyHashes(in_one_process=False, modulus=modulus)

    assert hashes.of_new(keys) == hashes.of_known(keys) == [hash_of(key) % modulus for key in keys]


def test_new_texts_are_not_remembered() -> None:
    hashes = KeyHashes(in_one_process=False)

    hashes.of_new(["a", "b"])

    assert not hashes


def test_keys_are_spread_evenly() -> None:
    counts = [0] * 8
    for key in range(8_000):
        counts[hash_of(f"customer-{key}") % 8] += 1
    assert min(counts) > 900
    assert max(counts) < 1_100
