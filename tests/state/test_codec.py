"""Values come back as they were, or their type is refused."""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar
from uuid import UUID

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PrivateAttr, field_validator
from typing_extensions import TypeAliasType, TypedDict

from broadway_py.errors import OptionsError
from broadway_py.state.codec import Codec, CodecError

T = TypeVar("T")
Cents = NewType("Cents", int)
Alias = TypeAliasType("Alias", dict[str, list[int]])


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Odd(enum.Enum):
    PAIR = (1, 2)


@dataclasses.dataclass
class Stats:
    count: int = 0
    total: float = 0.0
    seen: set[bytes] = dataclasses.field(default_factory=set)
    inner: Stats | None = None


@dataclasses.dataclass
class MoreStats(Stats):
    more: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Pair(Generic[T]):
    left: T
    right: T


class Point(NamedTuple):
    x: float
    y: Decimal


class Row(TypedDict, total=False):
    at: datetime
    raw: bytes


class Safe(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants", ser_json_bytes="base64", val_json_bytes="base64")
    mean: float = 0.0
    raw: bytes = b""
    name: str = Field("", serialization_alias="Name", validation_alias="NAME")


class Whole(BaseModel):
    n: int = 0

    @pydantic.computed_field
    def twice(self) -> int:
        return 2 * self.n


class MoreWhole(Whole):
    more: int = 0


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str]


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]

texts = st.text(st.characters(exclude_categories=["Cs"]))
floats = st.floats(allow_nan=True, allow_infinity=True)
zones = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23)).map(
    lambda offset: timezone(timedelta(minutes=offset // timedelta(minutes=1)))
)
times = st.datetimes(timezones=st.one_of(st.none(), zones))
# Without NaN: values with NaN are compared by their text, and the text of a set has any order.
numbers = st.floats(allow_nan=False)
stats = st.builds(
    Stats,
    st.integers(),
    numbers,
    st.sets(st.binary()),
    st.none() | st.builds(Stats, st.integers(), numbers, st.sets(st.binary())),
)

GOOD: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, floats),
    (str, texts),
    (bool, st.booleans()),
    (bytes, st.binary()),
    (Decimal, st.decimals(allow_nan=None, places=None).filter(lambda d: not d.is_snan())),
    (complex, st.complex_numbers()),
    (datetime, times),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas(timedelta(days=-999_999), timedelta(days=999_999))),
    (UUID, st.uuids()),
    (int | None, st.none() | st.integers()),
    (bool | int | float | str | None, st.none() | st.booleans() | st.integers() | floats | texts),
    (int | Decimal, st.integers() | st.decimals(allow_nan=False)),
    (int | bytes, st.integers() | st.binary()),
    (int | datetime, st.integers() | times),
    (Literal["a", 1] | None, st.sampled_from(["a", 1, None])),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Cents, st.integers()),
    (Alias, st.dictionaries(texts, st.lists(st.integers()))),
    (list[float], st.lists(floats)),
    (tuple[int, str], st.tuples(st.integers(), texts)),
    (tuple[int, ...], st.lists(st.integers()).map(tuple)),
    (set[int], st.sets(st.integers())),
    (frozenset[str], st.frozensets(texts)),
    (dict[str, list[int]], st.dictionaries(texts, st.lists(st.integers()))),
    (dict[int, float], st.dictionaries(st.integers(), floats)),
    (dict[bytes, bool], st.dictionaries(st.binary(), st.booleans())),
    (dict[bool, int], st.dictionaries(st.booleans(), st.integers())),
    (dict[date, int], st.dictionaries(st.dates(), st.integers())),
    (dict[datetime, int], st.dictionaries(times, st.integers())),
    (dict[Decimal, int], st.dictionaries(st.decimals(allow_nan=False), st.integers())),
    (dict[timedelta, int], st.dictionaries(st.timedeltas(), st.integers())),
    (dict[UUID, int], st.dictionaries(st.uuids(), st.integers())),
    (dict[Colour, int], st.dictionaries(st.sampled_from(Colour), st.integers())),
    (dict[Literal["a", "b"], int], st.dictionaries(st.sampled_from(["a", "b"]), st.integers())),
    (Counter[str], st.dictionaries(texts, st.integers()).map(Counter)),
    (defaultdict[str, int], st.dictionaries(texts, st.integers()).map(lambda d: defaultdict(int, d))),
    (OrderedDict[str, int], st.dictionaries(texts, st.integers()).map(OrderedDict)),
    (JsonValue, st.recursive(st.none() | st.booleans() | st.integers() | floats | texts, st.lists)),
    (Stats, stats),
    (Pair[int], st.builds(Pair, st.integers(), st.integers())),
    (Pair[Stats], st.builds(Pair, stats, stats)),
    (Point, st.builds(Point, floats, st.decimals(allow_nan=False))),
    (Row, st.fixed_dictionaries({}, optional={"at": times, "raw": st.binary()})),
    (Safe, st.builds(lambda m, r, n: Safe.model_construct(mean=m, raw=r, name=n), floats, st.binary(), texts)),
    (Whole, st.builds(Whole, n=st.integers())),
    (list[Pet], st.lists(st.builds(Cat, lives=st.integers()) | st.builds(Dog, tricks=st.lists(texts)))),
]


def known(annotation: Any) -> Codec[Any, Any]:
    return Codec(str, annotation)


CODECS = [known(annotation) for annotation, _ in GOOD]


def alike(before: Any, after: Any) -> bool:
    return type(before) is type(after) and (before == after or repr(before) == repr(after))


@pytest.mark.parametrize("index", range(len(GOOD)), ids=[str(annotation) for annotation, _ in GOOD])
def test_values_come_back_as_they_were(index: int) -> None:
    codec, values = CODECS[index], GOOD[index][1]

    @settings(max_examples=25)
    @given(st.lists(st.tuples(texts, st.integers(0), st.integers(0), values), max_size=3))
    def check(entries: list[tuple[str, int, int, Any]]) -> None:
        back = codec.load(codec.dump(entries))
        assert [entry[:3] for entry in back] == [entry[:3] for entry in entries]
        assert all(alike(was[3], now[3]) for was, now in zip(entries, back, strict=True))
        for *_, value in entries:
            codec.check(value)

    check()


KEYS: list[tuple[Any, Any, str]] = [
    (str, "a\nß", '"a\\nß"'),
    (int, 7, "7"),
    (bytes, b"\xff", '"_w=="'),
    (tuple[str, int], ("a", 1), '["a",1]'),
    (int | str | None, None, "null"),
    (date, date(2026, 11, 30), '"2026-11-30"'),
    (datetime, datetime(2026, 11, 30, tzinfo=UTC), '"2026-11-30T00:00:00Z"'),
    (Colour, Colour.RED, '"red"'),
    (Pair[str], Pair("a", "b"), '{"left":"a","right":"b"}'),
    (Point, Point(1.0, Decimal("1.10")), '[1.0,"1.10"]'),
]


@pytest.mark.parametrize(("annotation", "key", "text"), KEYS, ids=[str(key[0]) for key in KEYS])
def test_keys_come_back_and_have_a_text(annotation: Any, key: Any, text: str) -> None:
    codec: Codec[Any, int] = Codec(annotation, int)

    assert codec.load(codec.dump([(key, 1, 2, 3)])) == [(key, 1, 2, 3)]
    assert codec.key_text(key) == text


@settings(max_examples=300)
@given(st.one_of(st.text(), st.integers(), st.integers(-(2**70), 2**70), st.text('ab"\\\n\x7fé')))
def test_a_key_that_is_plain_is_written_as_any_other_and_comes_back(key: str | int) -> None:
    codec: Codec[Any, int] = Codec(type(key), int)
    entries = codec.dump([(key, 1, 1, 0)])

    assert entries == f"[[{codec.key_text(key)},1,1,0]]".encode()
    assert codec.load(entries) == [(key, 1, 1, 0)]


@pytest.mark.parametrize(
    ("key_type", "key", "expected"),
    [
        (str, "Peru", True),
        (str, "", True),
        (str, "Perú", False),
        (str, 1, False),
        (int, -(2**62), True),
        (int, 2**64, False),
        (int, True, False),
        (int, "1", False),
        (bool, True, False),
        (Level, Level.LOW, False),
        (float, 1.0, False),
    ],
)
def test_only_plain_keys_need_no_try(key_type: Any, key: Any, expected: bool) -> None:  # a case
    assert Codec(key_type, int).surely_stores(key) is expected


class Lossy(BaseModel):
    mean: float


class Raw(BaseModel):
    raw: bytes


class Hidden(BaseModel):
    shown: int
    hidden: int = Field(0, exclude=True)


class Private(BaseModel):
    _count: int = PrivateAttr(0)


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")


@pydantic.dataclasses.dataclass(config=ConfigDict(title="x"))
class Own:
    mean: float


@dataclasses.dataclass
class Partly:
    count: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Nested:
    parts: dict[str, list[Lossy]]


@dataclasses.dataclass
class Unread:
    part: "Missing"  # type: ignore[name-defined]  # noqa: F821,UP037  # that is the point


class Plain:
    pass


ANY = (
    "may be of any type, and JSON does not say which: name the type, or use pydantic.JsonValue for what "
    "JSON itself can "
    "say"
)
SEVERAL = "and JSON does not say which it was: name one, such as list or dict"
AMBIGUOUS = "use one type, or a field that tells the classes apart (pydantic's discriminator)"

BAD: list[tuple[Any, str]] = [
    (Any, f"value: Any {ANY}"),
    (object, f"value: object {ANY}"),
    (dict[str, Any], f"value.[value]: Any {ANY}"),
    (T, "value: ~T stands for any type: name the type"),
    (Pair, "value.left: ~T stands for any type: name the type"),
    (list, "value: JSON does not say what is in a list: write it, such as list[int]"),
    (dict, "value: JSON does not say what is in a dict: write it, such as dict[str, int]"),
    (deque[int], "value: a deque comes back without its maxlen: use a list"),
    (Sequence[int], f"value: several types are a Sequence, {SEVERAL}"),
    (Mapping[str, int], f"value: several types are a Mapping, {SEVERAL}"),
    (Callable[[], int], f"value: several types are a Callable, {SEVERAL}"),
    (type[int], f"value: several types are a type, {SEVERAL}"),
    (
        dict[tuple[int, str], int],
        (
            "value.[key]: tuple[int, str] does not come back as the key of a JSON object: use str or int, or "
            "keep a list of "
            "pairs"
        ),
    ),
    (
        dict[Level, int],
        ("value.[key]: Level does not come back as the key of a JSON object: use str or int, or keep a list of pairs"),
    ),
    (
        dict[int | str, int],
        (
            "value.[key]: int | str does not come back as the key of a JSON object: use str or int, or keep a "
            "list of pairs"
        ),
    ),
    (
        date | str,
        (
            f"value: JSON does not say which type of datetime.date | str a value has, because several of them are "
            f"written "
            f"as string: {AMBIGUOUS}"
        ),
    ),
    (
        list[tuple[int, ...] | set[int]],
        (
            "value.[item]: JSON does not say which type of tuple[int, ...] | set[int] a value has, because "
            "several of them "
            f"are written as array: {AMBIGUOUS}"
        ),
    ),
    (
        int | Level,
        (
            "value: JSON does not say which type of int | tests.state.test_codec.Level a value has, because "
            "several of them "
            f"are written as integer: {AMBIGUOUS}"
        ),
    ),
    (Odd, "value: the values of Odd must be str, int, bool or None to come back from JSON"),
    (Lossy, "value.mean: Lossy writes infinities and NaN as null: give it ConfigDict(ser_json_inf_nan='constants')"),
    (Own, "value.mean: Own writes infinities and NaN as null: give it ConfigDict(ser_json_inf_nan='constants')"),
    (
        Nested,
        (
            "value.parts.[value].[item].mean: Lossy writes infinities and NaN as null: give it "
            "ConfigDict(ser_json_inf_nan='constants')"
        ),
    ),
    (
        Raw,
        (
            "value.raw: Raw writes bytes as UTF-8, which not all of them are: give it "
            "ConfigDict(ser_json_bytes='base64', "
            "val_json_bytes='base64')"
        ),
    ),
    (Hidden, "value.hidden: a field with exclude=True is not stored: leave that out"),
    (Private, "value._count: a private attribute of a model is not stored: make it a field"),
    (Loose, "value: Loose allows extra fields, whose types nobody knows: leave out extra='allow'"),
    (Partly, "value.count: a field with init=False does not come back: use init=True"),
    (Unread, "value: the types in Unread cannot be read: name 'Missing' is not defined"),
    (
        Plain,
        (
            "value: JSON cannot say values of Plain: use a dataclass, a pydantic model, or a type such as int, "
            "str or list"
        ),
    ),
    (
        list[bytearray],
        (
            "value.[item]: JSON cannot say values of bytearray: use a dataclass, a pydantic model, or a type "
            "such as int, "
            "str or list"
        ),
    ),
]


@pytest.mark.parametrize(("annotation", "sentence"), BAD, ids=[str(annotation) for annotation, _ in BAD])
def test_types_that_json_cannot_bring_back_are_refused_with_the_place(annotation: Any, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        Codec(str, annotation)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("annotation", "sentence"),
    [
        (Any, f"key: Any {ANY}"),
        (
            frozenset[int],
            "key: a frozenset cannot be a key, or is not written in the same way each time: use a tuple",
        ),
        (
            tuple[str, list[int]],
            "key.[1]: a list cannot be a key, or is not written in the same way each time: use a tuple",
        ),
    ],
)
def test_types_that_cannot_be_keys_are_refused(annotation: Any, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        Codec(annotation, int)
    assert str(refused.value) == sentence


def test_known_classes_of_others_are_allowed() -> None:
    codec: Codec[str, Path] = Codec(str, Path)

    assert codec.load(codec.dump([("a", 0, 0, Path("x"))])) == [("a", 0, 0, Path("x"))]


@pytest.mark.parametrize(
    ("annotation", "value", "came"),
    [
        (int, "no number", "a str"),
        (int, 1.5, "a float"),
        (int, math.nan, "a float"),
        (str, "\ud800", "a str"),
        (date, datetime(2026, 1, 1, tzinfo=UTC), "a datetime"),
        (Stats, {"count": 1}, "a dict"),
        (Stats, MoreStats(1), "a MoreStats"),
        (Whole, MoreWhole(n=1), "a MoreWhole"),
    ],
)
def test_a_value_of_another_type_is_refused_when_it_is_written_and_named(
    annotation: Any, value: Any, came: str
) -> None:
    codec = known(annotation)
    with pytest.raises(CodecError) as refused:
        codec.dump(
            [*([] if annotation is not int else [("good", 0, 0, 1)]), ("bad", 0, 0, value), ("bad", 0, 0, value)]
        )

    assert refused.value.index == int(annotation is int)
    assert str(refused.value) == (
        f"a value cannot be stored as {annotation.__qualname__}: {came} came, or something in it has another "
        f"type than "
        "declared, or is text that UTF-8 cannot say"
    )


def test_a_key_that_cannot_be_stored_is_named() -> None:
    codec: Codec[str, int] = Codec(str, int)
    sentence = (
        "a key cannot be stored as str: a str came, or something in it has another type than declared, or is "
        "text that "
        "UTF-8 cannot say"
    )
    with pytest.raises(CodecError) as refused:
        codec.dump([("good", 0, 0, 0), ("\udfff", 0, 0, 0)])
    assert (refused.value.index, str(refused.value)) == (1, sentence)

    with pytest.raises(CodecError) as refused:
        codec.key_text("\udfff")
    assert str(refused.value) == sentence


@pytest.mark.parametrize("negative", [1, -1])
@pytest.mark.parametrize(
    ("annotation", "wrap"),
    [(int, lambda number: number), (list[int], lambda number: [1, number]), (Stats, Stats)],
)
def test_a_number_of_more_digits_than_can_be_read_again_is_refused(
    annotation: Any, wrap: Callable[[int], Any], negative: int
) -> None:
    codec = known(annotation)
    most = wrap(negative * (10**4300 - 1))
    good = ("good", 0, 0, most)
    assert codec.load(codec.dump([good])) == [good]
    # Wherever it stands in the blob.
    for before in (0, 1, 149, 2150):
        entries = [("x" * before, 0, 0, most), ("bad", 0, 0, wrap(negative * 10**4300)), good]
        with pytest.raises(CodecError) as refused:
            codec.dump(entries)
        assert refused.value.index == 1
        assert str(refused.value) == (
            f"a value cannot be stored as {codec.value_name}: it has a whole number of more than 4,300 digits, which "
            "could not be read again"
        )
        assert codec.dump(entries, to_be_read=False).count(b"0" * 4300) == 1


def test_a_key_of_too_many_digits_is_named() -> None:
    codec: Codec[int, int] = Codec(int, int)
    with pytest.raises(CodecError) as refused:
        codec.dump([(10**4300, 0, 0, 10**4300)])
    assert (refused.value.index, str(refused.value)) == (
        0,
        "a key cannot be stored as int: it has a whole number of more than 4,300 digits, which could not be read again",
    )


def test_digits_in_a_text_are_no_number() -> None:
    codec: Codec[str, list[str]] = Codec(str, list[str])
    entries: Any = [("9" * 5_000, 0, 0, ["7" * 9_000, '"' + "8" * 5_000 + "\\", ""])]
    assert codec.load(codec.dump(entries)) == entries
    numbers: Any = Codec(str, Decimal)
    entries = [("a", 0, 0, Decimal("7" * 9_000))]
    assert numbers.load(numbers.dump(entries)) == entries


@pytest.mark.parametrize("limit", [640, 4300, 10_000, 0], ids=lambda limit: f"limit of Python {limit}")
def test_plain_numbers_of_too_many_digits_are_refused_whatever_the_limit_of_python_is(limit: int) -> None:
    codec = known(int)
    shorter = "9" * 4300
    values = [int(shorter), 7, 10**4300]
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(limit)
    try:
        assert codec.plain_texts(values[:2]) == [shorter, "7"]
        with pytest.raises(CodecError) as refused:
            codec.plain_texts(values)
    finally:
        sys.set_int_max_str_digits(before)
    assert (refused.value.index, str(refused.value)) == (
        2,
        (
            "a value cannot be stored as int: it has a whole number of more than 4,300 digits, which could not be read "
            "again"
        ),
    )


def test_stored_bytes_of_another_type_are_refused_without_their_data() -> None:
    blob = known(str).dump([("secret", 1, 1, "also secret")])
    with pytest.raises(CodecError) as refused:
        known(int).load(blob)
    assert str(refused.value) == (
        "stored accumulators cannot be read as keys of type str and values of type int (int_parsing): if the "
        "type was "
        "changed, raise the aggregator's version and write upgrade(version, value)"
    )

    with pytest.raises(CodecError) as refused:
        Codec(int, int).load_older(blob)
    assert str(refused.value) == (
        "stored accumulators cannot be read as keys of type int (int_parsing): give the aggregator another "
        "name, or use "
        "another file"
    )


def test_older_values_come_as_plain_json() -> None:
    blob = known(Stats).dump([("a", 1, 2, Stats(3, math.inf, {b"\xff"}))])

    assert known(int).load_older(blob) == [
        ("a", 1, 2, {"count": 3, "total": math.inf, "seen": ["_w=="], "inner": None})
    ]


class Changing(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def _more(cls, value: int) -> int:
        return value + 1


@pytest.mark.parametrize(
    ("annotation", "initial", "sentence"),
    [
        (int, "0", "initial: expected a value of type int that can be stored, got a str"),
        (
            Changing,
            Changing.model_construct(n=1),
            (
                "initial: expected a value that comes back from JSON as it was, but a Changing came back as a "
                "Changing that "
                "differs: look at validators, serializers and fields that are not stored"
            ),
        ),
        (
            defaultdict[str, int],
            collections.defaultdict(lambda: 5),
            (
                "initial: expected a value that comes back from JSON as it was, but a defaultdict came back as a "
                "defaultdict that differs: look at validators, serializers and fields that are not stored"
            ),
        ),
    ],
)
def test_an_initial_value_that_would_not_come_back_is_refused(annotation: Any, initial: Any, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        known(annotation).check(initial)
    assert str(refused.value) == sentence


def test_a_whole_number_may_be_the_initial_value_of_a_float() -> None:
    known(float).check(0)
