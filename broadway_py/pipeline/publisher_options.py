"""Collects and checks ``publishers``: class attribute, settings of a file, constructor argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from broadway_py.errors import OptionsError
from broadway_py.foreign import article
from broadway_py.publisher import Sink
from broadway_py.written import opened

__all__ = ["checked_publishers", "merged_publishers"]

_EXPECTED: Final = "expected a publisher, such as QueuePublisher('var/out.db', 'results')"


def checked_publishers(value: object) -> dict[str, Sink]:
    """Returns the option ``publishers``.

    Raises:
        OptionsError: it is no dict of names and sinks.
    """
    if not isinstance(value, Mapping):
        raise OptionsError(("publishers",), f"expected a dict of name -> publisher, got {article(value)}")
    wrong: list[OptionsError] = []
    for name, sink in value.items():
        if not isinstance(name, str) or not name:
            wrong.append(OptionsError(("publishers",), f"expected names as text, got {name!r}"))
        elif not isinstance(sink, Sink):
            # The value is not shown: a URL in it may hold a password.
            came = f"the class {sink.__name__}: make an object of it" if isinstance(sink, type) else article(sink)
            wrong.append(OptionsError(("publishers", name), f"{_EXPECTED}, got {came}"))
    if wrong:
        raise OptionsError.of(wrong)
    return dict(value)


def merged_publishers(base: object, raw: object) -> dict[str, object]:
    """Returns the section ``publishers`` of a file, merged over those of the class by name. ``null`` removes one.

    The daemon has made a sink of each section before. What is no sink is refused when the pipeline is made.

    Raises:
        OptionsError: it is no section.
    """
    raw = opened(raw)
    if not isinstance(raw, Mapping):
        raise OptionsError(("publishers",), f"expected a section with one entry for each publisher, got {article(raw)}")
    merged: dict[str, object] = dict(base) if isinstance(base, Mapping) else {}
    for key, said in raw.items():
        value = opened(said)
        if value is None:
            merged.pop(str(key), None)
        else:
            merged[str(key)] = value
    return merged
