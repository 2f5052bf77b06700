"""How functions and elements get from one process to another, also those that are defined in the program itself.

A worker process does not run the program. What the program defines is pickled by value (cloudpickle): functions always,
and a class when the first of its objects goes over. The receiver keeps it under its name in its ``__main__``. So the
objects that follow, and those that come back, are pickled by name.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from inspect import getclosurevars
from types import FunctionType, MethodType
from typing import Any, Final

from broadway_py.flow.frames import Frame
from broadway_py.foreign import foreign_errors

__all__ = ["Carrier", "by_value", "is_carried", "keep_definitions", "unpacked", "variable_at_fault", "with_definitions"]

#: The newest protocol that every supported Python reads.
_PROTOCOL: Final = 5
_MAIN: Final = "__main__"
#: Stands between the texts of a list that goes over as one text.
_BETWEEN: Final = "\0"
_ONLY_TEXT: Final = {str}


# --- by value


def by_value(value: object) -> bytes:
    """Returns *value* pickled, with all that the program defines of it."""
    pickled: bytes = import_module("cloudpickle").dumps(value, _PROTOCOL)
    return pickled


def is_carried(value: object) -> bool:
    """Returns True if *value* pickles."""
    try:
        by_value(value)
    except foreign_errors():
        return False
    return True


def variable_at_fault(value: Any) -> str | None:
    """Returns the name of the variable that keeps a function from being pickled; None: it was not found."""
    for name, each in _variables(value):
        if not is_carried(each):
            deeper = variable_at_fault(each) if isinstance(each, FunctionType) else None
            return name if deeper is None else deeper
    return None


def _variables(value: Any) -> Iterator[tuple[str, object]]:
    """Yields what a function uses, by name."""
    if isinstance(value, partial):
        yield from ((f"argument {number}", each) for number, each in enumerate(value.args))
        yield from value.keywords.items()
        yield from _variables(value.func)
    elif isinstance(value, MethodType):
        yield "self", value.__self__
    elif isinstance(value, FunctionType):
        yield from (value.__kwdefaults__ or {}).items()
        arguments = value.__code__.co_varnames[: value.__code__.co_argcount]
        defaults = value.__defaults__ or ()
        yield from zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)
        used = getclosurevars(value)
        yield from used.nonlocals.items()
        yield from used.globals.items()
    elif callable(value):
        yield from getattr(value, "__dict__", {}).items()


def _definitions(pickled: bytes, known: set[str]) -> dict[str, Any]:
    """Returns what the program defines, is not among *known*, and seems to be named in *pickled*."""
    if _MAIN.encode() not in pickled:
        return {}
    return {
        name: each
        for name, each in vars(sys.modules[_MAIN]).items()
        if isinstance(each, type | FunctionType)
        and name not in known
        and each.__module__ == _MAIN
        and name.encode() in pickled
    }


def with_definitions(value: object) -> tuple[bytes, list[bytes]]:
    """Returns *value* pickled by value, and what the program defines of it, for :func:`keep_definitions`."""
    pickled = by_value(value)
    return pickled, _pickled_definitions(_definitions(pickled, set()))


def _pickled_definitions(definitions: Mapping[str, Any]) -> list[bytes]:
    # What does not pickle is only needed if it is more than a name in a text.
    return [by_value(named) for named in definitions.items() if is_carried(named)]


def keep_definitions(pickled: list[bytes]) -> None:
    """Keeps definitions of the program in this process, under their names."""
    main = sys.modules[_MAIN]
    for each in pickled:
        name, value = pickle.loads(each)  # noqa: S301  # from a process of the same flow
        vars(main).setdefault(name, value)


# --- lists


class Carrier:
    """Packs the lists that go to one other process.

    Args:
        to_program: the other process is the one that runs the program, which has all definitions.
    """

    def __init__(self, *, to_program: bool) -> None:
        self._to_program = to_program
        # The definitions that were sent.
        self._known: set[str] = set()

    def packed(self, frames: list[Frame]) -> bytes:
        """Returns *frames* as bytes, for :func:`unpacked`. An element that does not pickle raises its own error."""
        content = [_content(frame) for frame in frames]
        try:
            pickled = pickle.dumps(content, _PROTOCOL)
        except foreign_errors():
            pickled = None
        if pickled is None:
            # Perhaps something that a function has defined. It goes with its definition, each time.
            return b"v" + by_value(content)
        if not self._to_program and (found := _definitions(pickled, self._known)):
            self._known.update(found)
            return b"d" + pickle.dumps((_pickled_definitions(found), pickled), _PROTOCOL)
        return b"p" + pickled


def unpacked(packed: bytes) -> list[Frame]:
    """Returns the lists that *packed* was made of."""
    kind, pickled = packed[:1], memoryview(packed)[1:]
    if kind == b"v":
        content = _ByValue(io.BytesIO(pickled)).load()
    elif kind == b"d":
        definitions, pickled = pickle.loads(pickled)  # noqa: S301  # from a process of the same flow
        keep_definitions(definitions)
        content = pickle.loads(pickled)  # noqa: S301  # as above
    else:
        content = pickle.loads(pickled)  # noqa: S301  # as above
    return list(map(_frame, content))


def _content(frame: Frame) -> tuple[Any, ...]:
    rest = (frame.first, frame.stamped, frame.high, frame.side, frame.is_last)
    return _joined(frame.elements), frame.partition, frame.origin, *rest


def _joined(elements: list[Any]) -> list[Any] | str:
    """Returns a list of texts as one text, which pickles four times as fast; or else the list itself."""
    try:
        text = _BETWEEN.join(elements)
    except TypeError:
        return elements
    # Texts of other types must come back as what they are.
    is_alike = set(map(type, elements)) == _ONLY_TEXT and text.count(_BETWEEN) == len(elements) - 1
    return text if is_alike else elements


def _frame(content: tuple[Any, ...]) -> Frame:
    elements, partition, origin, first, stamped, high, side, is_last = content
    return Frame(
        elements.split(_BETWEEN) if type(elements) is str else elements,
        partition=partition,
        origin=origin,
        first=first,
        stamped=stamped,
        high=high,
        side=side,
        is_last=is_last,
    )


class _ByValue(pickle.Unpickler):
    """Reads what was pickled by value. A class that is already here is not changed by the copy that comes back."""

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        return partial(_set_state, found) if name == "_class_setstate" and module.startswith("cloudpickle") else found


def _set_state(set_state: Any, kind: Any, state: Any) -> Any:
    attributes = vars(kind)
    return kind if all(name in attributes for name in state[0]) else set_state(kind, state)
