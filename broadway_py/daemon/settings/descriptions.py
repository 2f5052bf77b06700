"""What the models of the settings say about themselves: their docstrings, and the comments above their fields."""

from __future__ import annotations

import inspect
import re
from typing import Final

from pydantic import BaseModel

__all__ = ["section_text", "setting_texts"]

_COMMENT: Final = re.compile(r"\s*#: ?(.*)")
_FIELD: Final = re.compile(r"    (\w+):")


def section_text(model: type[BaseModel]) -> str:
    """Returns what a section is for: the first line of the docstring of *model*, in the words of a settings file."""
    return _in_files((model.__doc__ or "").strip().splitlines()[0])


def setting_texts(model: type[BaseModel]) -> dict[str, list[str]]:
    """Returns the lines of the ``#:`` comment above each field, by its name. Fields of base classes are included."""
    found: dict[str, list[str]] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        pending: list[str] = []
        for line in inspect.getsource(base).splitlines():
            if comment := _COMMENT.fullmatch(line):
                pending.append(_in_files(comment[1]))
            elif field := _FIELD.match(line):
                found.setdefault(field[1], pending)
                pending = []
            else:
                pending = []
    return found


def _in_files(text: str) -> str:
    """Returns *text* as it reads in a settings file, where None is null."""
    return text.replace("``", "").replace("None:", "null:")
