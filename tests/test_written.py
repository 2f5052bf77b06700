"""A setting that came as text becomes what its field wants, whatever it looks like."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from broadway_py.errors import OptionsError
from broadway_py.options import Batcher, Duration, Options, PlainOptions, Processors, load
from broadway_py.written import Written, looked_at, opened, read_as


class Colour(Enum):
    RED = "red"


class Inner(Options):
    password: str = ""
    size: Annotated[int, Field(strict=True)] = 1


class Outer(Options):
    text: str | None = None
    number: Annotated[int, Field(strict=True)] | None = None
    switch: Annotated[bool, Field(strict=True)] = False
    either: Annotated[int, Field(strict=True)] | Literal["auto"] = "auto"
    wait: Duration = 1.0
    share: float = 0.5
    names: str | tuple[str, ...] = ()
    pair: tuple[Duration, Duration] = (1.0, 2.0)
    word: Literal["plain", "external"] | None = None
    anything: Any = None
    table: dict[str, Any] = Field(default_factory=dict)
    file: Path | None = None
    colour: Colour = Colour.RED
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()


#: What looks like something else to YAML, or to a shell, or to a URL.
ODD = [
    "12345678", "null", "~", "true", "false", "yes", "no", "on", "off", "007", "0x1F", "1e3", "1_000", "1.10", "1:30",
    "2024-01-01", "", " ", " x ", "#x", "a: b", "a #b", "{a: b}", "[1, 2]", "{broken", "*a", "&a", "!a", "@a", "`a",
    "%a", "'a'", '"a"', "- a", "? a", "| a", "> a", "a\nb", "a\tb", "$HOME", "p@ss:w/o?r#d", "ünï-✓-密码", "-1", "+1",
    ".inf", ".nan", "=", "<<", "\\n", "%41",
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_a_field_for_text_takes_every_text_as_it_is(odd: str) -> None:
    taken = Outer(text=Written(odd), names=Written(f"x{odd}"), inner={"password": Written(odd)})
    assert (taken.text, taken.names) == (odd, f"x{odd}")
    assert taken.inner is not None
    assert (taken.inner.password, type(taken.inner.password)) == (odd, str)


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("number", "7", 7),
        ("number", "-1", -1),
        ("number", "1_000", 1000),
        ("number", "null", None),
        ("number", "", None),
        ("switch", "true", True),
        ("switch", "FALSE", False),
        ("either", "auto", "auto"),
        ("either", "50", 50),
        ("wait", "5", 5.0),
        ("wait", "0.5", 0.5),
        ("wait", "500ms", 0.5),
        ("share", "1e-1", 0.1),
        ("names", "one", "one"),
        ("names", "[007, true, 'x', 5]", ("007", "true", "x", "5")),
        ("pair", "[500ms, 5]", (0.5, 5.0)),
        ("word", "plain", "plain"),
        ("word", "null", None),
        ("anything", "5", 5),
        ("anything", "null", None),
        ("anything", "{a: [1, x]}", {"a": [1, "x"]}),
        ("anything", "'5'", "5"),
        ("table", "{x-max-length: 5, x-mode: lazy, x-text: '5'}", {"x-max-length": 5, "x-mode": "lazy", "x-text": "5"}),
        ("file", "007", Path("007")),
        ("colour", "red", Colour.RED),
        ("inner", "{password: 12345678, size: 5}", Inner(password="12345678", size=5)),
        ("inner", "null", None),
        ("inners", "[{password: 007, size: 2}]", (Inner(password="007", size=2),)),
    ],
)
def test_every_other_field_reads_it_as_yaml(field: str, text: str, value: object) -> None:
    assert getattr(Outer(**{field: Written(text)}), field) == value


def test_what_lies_inside_lists_and_tables_is_read_by_its_own_field() -> None:
    made = load(
        Outer,
        {
            "names": [Written("007"), Written("null")],
            "pair": [Written("1"), Written("2s")],
            "table": {"a": Written("5"), "b": Written("5", plain=False), "c": {"d": [Written("true")]}},
            "inners": [{"password": Written("1"), "size": Written("2")}],
        },
    )
    assert made.names == ("007", "null")
    assert made.pair == (1.0, 2.0)
    assert made.table == {"a": 5, "b": "5", "c": {"d": [True]}}
    assert made.inners == (Inner(password="1", size=2),)


def test_a_whole_section_may_be_one_text() -> None:
    assert load(Inner, Written("{password: 12345678, size: 5}")) == Inner(password="12345678", size=5)
    assert load(Processors, Written("{concurrency: 5}")).concurrency == 5
    assert load(Batcher, {"batch_size": Written("5"), "batch_timeout": Written("2")}).batch_size == 5


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"number": "many"}, "number: expected a valid integer, got 'many'"),
        ({"number": "007"}, "number: expected a valid integer, got '007'"),
        ({"switch": "yes"}, "switch: expected true or false, got 'yes'"),
        ({"switch": "1"}, "switch: expected true or false, got 1"),
        (
            {"wait": "soon"},
            "wait: expected a duration in seconds, or text such as '500ms', '2s', '1m', got 'soon'",
        ),
        ({"word": "plane"}, "word: expected 'plain' or 'external', got 'plane'"),
        ({"inner": "{size: many}"}, "inner.size: expected a valid integer, got 'many'"),
        (
            {"inner": "{passwort: geheim}"},
            "inner.passwort: unknown setting; known here: password, size; did you mean 'password'?",
        ),
    ],
)  # fmt: skip
def test_what_fits_in_no_way_is_refused_by_its_field(settings: Mapping[str, str], sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        Outer(**{name: Written(text) for name, text in settings.items()})
    assert str(refused.value) == sentence


def test_all_wrong_fields_are_told_those_that_came_as_text_too() -> None:
    with pytest.raises(OptionsError) as refused:
        Outer(number=Written("x"), word=Written("y"), either="z", text=5, share=Written("0.1"), file=Written("1"))
    assert [str(one) for one in refused.value.all()] == [
        "text: expected text, got 5; put quotes around it",
        "either.int: expected a valid integer, got 'z'",
        "number: expected a valid integer, got 'x'",
        "word: expected 'plain' or 'external', got 'y'",
    ]


def test_without_a_field_the_look_decides_unless_it_was_quoted() -> None:
    assert looked_at({"a": Written("5"), "b": [Written("5", plain=False)]}) == {"a": 5, "b": ["5"]}
    assert type(looked_at(Written("x"))) is str


def test_sections_open_and_texts_stay() -> None:
    assert opened(Written("null")) is None
    assert opened(Written("{a: 1}")) == {"a": "1"}
    assert opened({"a": 1}) == {"a": 1}


@pytest.mark.parametrize("plain", [True, False])
def test_it_reaches_workers_as_it_is(plain: bool) -> None:
    again = pickle.loads(pickle.dumps(Written("007", plain=plain)))  # noqa: S301  # our own bytes
    assert (again, type(again), again.plain) == ("007", Written, plain)


def test_an_unknown_annotation_is_no_obstacle() -> None:
    assert read_as("NotImported", Written("5")) == 5
    assert read_as(Any, [Written("x")]) == ["x"]


def test_the_plain_options_of_a_pipeline_are_read_the_same_way() -> None:
    options = PlainOptions(max_restarts=Written("5"), ordered=Written("false"), shutdown_timeout=Written("10"))
    assert (options.max_restarts, options.ordered, options.shutdown_timeout) == (5, False, 10.0)
