"""Decides what differs between two settings, and which differences need a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from broadway_py.daemon.reload.resolved import Resolved, name_of
from broadway_py.daemon.settings.settings import Settings
from broadway_py.errors import OptionsError
from broadway_py.written import Written, opened, parse_value

__all__ = ["Difference", "difference", "refusals"]


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs. The pipelines are given by their names, in the order of the newer settings."""

    unchanged: tuple[str, ...]
    #: Their sections differ, or the content of a file with a secret that they name.
    changed: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]
    log: bool
    http: bool
    #: The number of workers before and after.
    workers: tuple[int, int]


def difference(before: Resolved, after: Resolved) -> Difference:
    """Returns what differs between *before* and *after*."""
    old, new = _sections(before.settings), _sections(after.settings)
    unchanged = [
        name
        for name, section in new.items()
        if name in old and _same(old[name], section) and before.marks[name] == after.marks[name]
    ]
    return Difference(
        unchanged=tuple(unchanged),
        changed=tuple(name for name in new if name in old and name not in unchanged),
        new=tuple(name for name in new if name not in old),
        gone=tuple(name for name in old if name not in new),
        log=before.settings.log != after.settings.log,
        http=before.settings.http != after.settings.http,
        workers=(before.settings.workers, after.settings.workers),
    )


def refusals(found: Difference) -> Iterator[OptionsError]:
    """Yields a sentence for each difference that takes effect at a restart only. With one, nothing is reloaded."""
    if found.http:
        yield OptionsError(
            ("http",), "a change of this section takes effect at a restart only; put it back to reload the others"
        )
    before, after = found.workers
    if before != after and 1 in (before, after):
        yield OptionsError(
            ("workers",),
            f"a change from {before} to {after} takes effect at a restart only, because pipelines move into other "
            "processes; put it back to reload the others",
        )


def _sections(settings: Settings) -> dict[str, Mapping[str, Any]]:
    """Returns the section of each pipeline by its name, without the name. Two keys with one name are one pipeline."""
    return {
        name_of(key, section): {field: value for field, value in section.items() if field != "name"}
        for key, section in settings.pipelines.items()
    }


def _same(old: object, new: object) -> bool:
    """Returns whether two settings are equal. One that was given as text equals what it means in YAML."""
    try:
        return _equal(old, new)
    except RecursionError:  # a context may be nested deeply
        return False


def _equal(old: object, new: object) -> bool:
    if isinstance(old, Written) and isinstance(new, str):
        return str(old) == str(new) and isinstance(new, Written) and old.plain == new.plain
    if isinstance(old, Written) != isinstance(new, Written):
        old, new = _meant(old), _meant(new)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(_equal(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_equal, old, new))
    # 1, 1.0 and true are equal in Python. "Not a number" is equal to nothing.
    return type(old) is type(new) and (old == new or (old != old and new != new))  # noqa: PLR0124


def _meant(value: object) -> object:
    if not isinstance(value, Written):
        return value
    return parse_value(value) if value.plain else opened(value)
