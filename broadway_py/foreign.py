"""Code that is not ours: what it may let out, and how its objects are asked without trusting them."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any, Final

__all__ = ["article", "foreign_errors", "is_a", "shown", "text_of", "type_name"]

#: Of a text that comes from somebody's object, so many characters are kept.
MOST_CHARS: Final = 8_192
_SHOWN_CHARS: Final = 80

_name_of_type: Any = type.__dict__["__name__"]


def foreign_errors(*, cancellations: bool = False) -> tuple[type[BaseException], ...]:
    """The types that an ``except`` names around code that is not ours: all errors but what is meant for us.

    Also those that are no :class:`Exception`, such as the panic of a Rust extension, and ``SystemExit``, which in a
    thread would end nothing either. What passes through:

    * cancellations, unless *cancellations* is true: whoever calls decides whether somebody has asked for them;
    * Ctrl-C, which is somebody's wish. It comes to the main thread alone: anywhere else the code has raised it itself;
    * the end of a coroutine that nobody runs any more.
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
    """True when a coroutine's ``close`` is what runs us, and no task and no plain thread does."""
    try:
        return asyncio.current_task() is None
    except RuntimeError:
        # Without a loop: in a thread of the callbacks it is the callback's own; in the main one its loop has gone.
        return threading.current_thread() is threading.main_thread()


def is_a(value: object, kind: type | tuple[type, ...]) -> bool:
    """As ``isinstance``, by the true type: an object's own ``__class__`` may say anything, or raise."""
    return issubclass(type(value), kind)


def type_name(value: object) -> str:
    """The name of its type, whatever a metaclass makes of it."""
    return str(_name_of_type.__get__(type(value)))


def article(value: object) -> str:
    """``"a str"``, ``"an int"``: what came instead of what was expected."""
    name = type_name(value)
    return f"{'an' if name[:1] in tuple('aeiouAEIOU') else 'a'} {name}"


def text_of(value: object) -> str:
    """*value* as text, cut where it is long. Never raises for what is in it."""
    try:
        text = str(value)
    except foreign_errors():
        return "(its text cannot be shown)"
    return str.__str__(text) if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]}… ({len(text)} characters)"


def shown(value: object) -> str:
    """*value* as it would be written in a program, cut where it is long. Never raises for what is in it."""
    try:
        text = repr(value)
    except foreign_errors():
        return f"{article(value)} that cannot be shown"
    return str.__str__(text) if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."
