"""The numbers of the contract: their form, which of them are in scope, and which are left out for a reason."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

__all__ = ["ContractNumberError", "Excepted", "Kind", "Scope", "check_numbers", "load_scope"]

_NUMBER: Final = re.compile(r"([BRSGFW])-(\d{3})")
_MOST_PER_TEST: Final = 3

#: Why a number has no test of its own: it means something on the BEAM only; the original's behaviour is a defect
#: (a test may hold the mended one); or it is left out on purpose.
Kind = Literal["beam_only", "defect_fixed", "out_of_scope"]


class ContractNumberError(ValueError):
    """A contract number, or a row about one, is not as it must be."""


@dataclass(frozen=True, slots=True)
class Excepted:
    """A number without a test, and the sentence that says why."""

    kind: Kind
    sentence: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Which numbers must be held, and which of them are excepted."""

    numbers: frozenset[str]
    exceptions: Mapping[str, Excepted]


def check_numbers(numbers: Sequence[object]) -> None:
    """Refuse a test's *numbers* unless they are one to three, each in the contract's form."""
    if not 1 <= len(numbers) <= _MOST_PER_TEST:
        raise ContractNumberError(
            f"a test carries one to three contract numbers, this one has {len(numbers)}: "
            "split the test, so that each number fails on its own"
        )
    for number in numbers:
        if not isinstance(number, str) or _NUMBER.fullmatch(number) is None:
            raise ContractNumberError(f'a contract number looks like "B-017" (B, R, S, G, F or W), got {number!r}')


def load_scope(path: Path) -> Scope:
    """Read the scope and the exceptions from the file at *path*.

    Raises:
        ContractNumberError: a range, a kind or a row is not as the file's head describes.
    """
    content = tomllib.loads(path.read_text())
    exceptions: dict[str, Excepted] = {}
    for row in content.get("exception", []):
        excepted = _excepted(row)
        for number in _spread(row["numbers"]):
            if number in exceptions:
                raise ContractNumberError(f"{number} has two rows in {path.name}: keep one")
            exceptions[number] = excepted
    return Scope(frozenset(_spread(content["scope"]["numbers"])), exceptions)


def _excepted(row: Mapping[str, Any]) -> Excepted:
    if set(row) != {"numbers", "kind", "sentence"} or row["kind"] not in get_args(Kind) or not row["sentence"].strip():
        raise ContractNumberError(
            f"an exception has numbers, a kind ({', '.join(get_args(Kind))}) and a sentence, got {dict(row)!r}"
        )
    return Excepted(row["kind"], " ".join(row["sentence"].split()))


def _spread(entries: Iterable[str]) -> Iterable[str]:
    """Single numbers and ranges ("B-020..B-030"), as single numbers."""
    for entry in entries:
        first, dots, last = entry.partition("..")
        check_numbers([first, last or first])
        letter, start, end = first[0], int(first[2:]), int((last or first)[2:])
        if (dots and not last) or (last or first)[0] != letter or end < start:
            raise ContractNumberError(f'a range looks like "B-020..B-030", got {entry!r}')
        for number in range(start, end + 1):
            yield f"{letter}-{number:03d}"
