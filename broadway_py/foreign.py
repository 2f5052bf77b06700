"""Code that is not part of the library: which errors it may raise, and how to use its objects without trusting them."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any, Final

__all__ = ["article", "foreign_errors", "is_a", "shown", "text_of", "type_name"]

#: The most characters that are kept of the text of an object of the user.
MOST_CHARS: Final = 8_192
_SHOWN_CHARS: Final = 80

_name_of_type: Any = type.__dict__["__name__"]


def foreign_errors(*, cancellations: bool = False) -> tuple[type[BaseException], ...]:
    """Returns the types for an ``except`` around code that is not part of the library.

    The types include errors that are not an :class:`Exception`, such as the panic of a Rust extension, and
    ``SystemExit``, which would not end the process in a thread either. These are not included, because they are meant
    for the library:

    * a cancellation, unless *cancellations* is true: the caller decides whether it was requested;
    * Ctrl-C in the main thread, because a person wants it. Python raises it only there; in another thread the code has
      raised it itself;
    * the end of a coroutine that is closed because it is no longer run.
    """
    error = sys.exception()
    if isinstance(error, asyncio.CancelledError):
        return (asyncio.CancelledError,) if cancellations else ()
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        return ()
    if isinstance(error, GeneratorExit) and _is_closed():
        return ()
    return (BaseException,)


def _is_closed() -> bool:
    """Returns True if this runs because a coroutine is being closed, and not in a task or in a plain thread."""
    try:
        return asyncio.current_task() is None
    except RuntimeError:
        # There is no loop. In a thread for callbacks, the callback itself has raised it. In the main thread, the loop
        # has ended.
        return threading.current_thread() is threading.main_thread()


def is_a(value: object, kind: type | tuple[type, ...]) -> bool:
    """Works as ``isinstance``, but by the true type: an object's ``__class__`` may have any value, or raise."""
    return issubclass(type(value), kind)


def type_name(value: object) -> str:
    """Returns the name of the type of *value*, also if a metaclass hides it."""
    return str(_name_of_type.__get__(type(value)))


def article(value: object) -> str:
    """Returns the type of *value* with its article, such as ``"a str"`` or ``"an int"``, for error texts."""
    name = type_name(value)
    return f"{'an' if name[:1] in tuple('aeiouAEIOU') else 'a'} {name}"


def text_of(value: object) -> str:
    """Returns *value* as text, cut if it is long. It does not raise if the object's own code does."""
    try:
        text = str(value)
    except foreign_errors():
        return "(its text cannot be shown)"
    return str.__str__(text) if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]}… ({len(text)} characters)"


def shown(value: object) -> str:
    """Returns the ``repr`` of *value*, cut if it is long. It does not raise if the object's own code does."""
    try:
        text = repr(value)
    except foreign_errors():
        return f"{article(value)} that cannot be shown"
    return str.__str__(text) if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."
