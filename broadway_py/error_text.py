"""What the log shows of an error: always its type and the places in the code, its text only on request.

The text of an error often quotes the data that caused it, in ways that no search can find. So the text is not shown
unless the user asks for it: with ``log: {errors: text}`` for the daemon, with :func:`show_error_texts` for programs.

Nothing here takes more than a few milliseconds, however large the error is: chains, groups, tracebacks and texts are
cut before they are processed.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from broadway_py.errors import (
    BatchFailed,
    BroadwayError,
    DefinitionError,
    HandlerVerdict,
    MalformedMessage,
    MessageFailed,
    OptionsError,
    ProducerError,
    PublishError,
    SettleError,
)
from broadway_py.foreign import foreign_errors, type_name

if TYPE_CHECKING:
    from pydantic_core import ValidationError

__all__ = [
    "MOST_TEXT",
    "PLACE",
    "clipped",
    "complaints_of",
    "described",
    "error_texts_are_shown",
    "how_to_see_texts",
    "name_of",
    "place_of",
    "place_of_stack",
    "reason_of",
    "show_error_texts",
    "shown_text",
    "text_of",
]

#: The attribute that holds where an exception was raised, if it came from another process without its traceback.
PLACE: Final = "_broadway_place"
#: The most characters of an error's text that are kept.
MOST_TEXT: Final = 4096
_MOST_NAME: Final = 200
#: The most errors of pydantic that are processed: a list of a million wrong entries has two million of them.
_MOST_COMPLAINTS: Final = 1_000
_TOLD_COMPLAINTS: Final = 5
#: The most errors of a chain or a group that are shown, and the most frames of each.
_MOST_ERRORS: Final = 10
_MOST_FRAMES: Final = 20
_INNERMOST: Final = 4
#: The most frames that are visited. With a raised recursion limit, a stack may have any number of them.
_MOST_WALKED: Final = 20_000

# Without pathlib and sysconfig, which would make each worker process start later. They are not loaded when an error is
# told either: the error may be that no file can be opened.
_OUR_ROOT: Final = os.path.dirname(__file__)  # noqa: PTH120
_STDLIB: Final = os.path.dirname(os.__file__)  # noqa: PTH120
#: A virtual environment has a folder like that of the standard library, for what is installed there.
_LIBRARY_ROOTS: Final = tuple({_STDLIB, _STDLIB.replace(sys.base_prefix, sys.prefix, 1), _OUR_ROOT})


class _Show:
    texts = False
    how = "broadway_py.log.show_error_texts() shows it"


def show_error_texts(shown: bool = True, *, how: str | None = None) -> None:  # noqa: FBT001, FBT002  # reads as a sentence
    """Turns the texts of errors in the log of this process on or off.

    Words that also occur in the payload of the message are still hidden if they are found. This is not guaranteed, so
    use it only where the data is not secret.

    Args:
        shown: True shows the texts; False goes back to the default.
        how: what a line without the text says about how to see it.
    """
    _Show.texts = shown
    if how is not None:
        _Show.how = how


def error_texts_are_shown() -> bool:
    """Returns whether the log shows the texts of errors."""
    return _Show.texts


def how_to_see_texts() -> str:
    """Returns what a line says in place of the text of an error."""
    return f"not shown, it may quote the message; {_Show.how}"


def clipped(text: str, most: int) -> str:
    """Returns the first *most* characters of *text*. If it is longer, the number of missing characters is added."""
    if len(text) <= most:
        return text if type(text) is str else str.__str__(text)
    return f"{str.__getitem__(text, slice(0, most))}… ({len(text) - most:,} more characters)"


def name_of(error: BaseException) -> str:
    """Returns the name of the type of *error*, cut if it is very long."""
    return clipped(type_name(error), _MOST_NAME)


def _is_of_pydantic(error: BaseException) -> TypeGuard[ValidationError]:
    """Returns True if pydantic found *error* in data. Nothing is loaded for that: pydantic is, if it has raised."""
    kind = getattr(sys.modules.get("pydantic_core"), "ValidationError", None)
    return kind is not None and isinstance(error, kind)


def text_of(error: BaseException, most: int = MOST_TEXT) -> str:
    """Returns the text of *error*, at most *most* characters. It never raises."""
    try:
        if _is_of_pydantic(error) and error.error_count() > _MOST_COMPLAINTS:
            # The text would be made from all of them.
            return f"{error.error_count():,} validation errors of {clipped(error.title, _MOST_NAME)}"
        return clipped(str(error), most)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  # code of the user: an error whose __str__ raises
        return "(its text cannot be shown)"


def shown_text(error: BaseException) -> str | None:
    """Returns the text of *error* that is always shown: the words of the library or of a connector; None: nothing."""
    if _is_of_pydantic(error):
        return complaints_of(error)
    # These quote the handler of a message, or the properties of the message.
    quoting = HandlerVerdict | MalformedMessage | MessageFailed | BatchFailed
    # What handlers publish with `self.publishers` may fail with an error that is a verdict, too. The words are ours.
    if isinstance(error, BroadwayError) and (isinstance(error, PublishError) or not isinstance(error, quoting)):
        # A class of the user may quote anything. The text of a connector's error is meant to be shown.
        ours = type(error).__module__.partition(".")[0] == "broadway_py"
        if ours or isinstance(error, ProducerError | PublishError | SettleError | OptionsError | DefinitionError):
            return text_of(error)
    return None


def reason_of(error: BaseException) -> str:
    """Returns what a line says of *error* as its reason: its text if that may be shown, and else how to see it."""
    shown = text_of(error) if error_texts_are_shown() else shown_text(error)
    return how_to_see_texts() if shown is None else shown


def complaints_of(invalid: ValidationError, names: Collection[str] = ()) -> str:
    """Returns the place and kind of the first errors. It never shows the input, or the keys of a dict in it.

    Args:
        invalid: the error of pydantic.
        names: the names of the schema's own fields, which may be shown.
    """
    count = invalid.error_count()
    if count > _MOST_COMPLAINTS:
        return f"{count:,} errors, too many to show any"
    complaints = [
        f"{'.'.join(_part(part, names) for part in error['loc'][:20]) or 'the whole value'}: "
        f"{clipped(error['type'], 60)}"
        for error in invalid.errors(include_url=False, include_context=False, include_input=False)[
            : _TOLD_COMPLAINTS + 1
        ]
    ]
    told = "; ".join(complaints[:_TOLD_COMPLAINTS])
    return f"{told}{'; …' if len(complaints) > _TOLD_COMPLAINTS else ''}"


def _part(part: int | str, names: Collection[str]) -> str:
    return str(part) if isinstance(part, int) or part in names else "***"


def place_of(error: BaseException) -> str:
    """Returns where *error* was raised: the innermost places, the outermost of them first.

    If there is code of the user, the list begins with it. A place is file, line and function, without source or values.
    """
    try:
        if (place := getattr(error, PLACE, None)) is not None:
            return clipped(str(place), 1000)
        stack = error.__traceback__
    except foreign_errors(cancellations=True):
        return ""  # code of the user
    return _places(_frames(stack))


def place_of_stack(frame: FrameType | None) -> str:
    """Returns the same for a running stack, whose innermost frame is *frame*."""
    frames: deque[tuple[str, int, str]] = deque()
    while frame is not None and len(frames) < _MOST_WALKED:
        frames.appendleft((frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name))
        frame = frame.f_back
    return _places(frames)


def _places(frames: Iterable[tuple[str, int, str]]) -> str:
    last: deque[tuple[int, str]] = deque(maxlen=_INNERMOST)
    users = (-1, "")
    own: set[int] = set()
    for number, (filename, line, function) in enumerate(frames):
        shown = f"{clipped(filename.rsplit('/', 1)[-1], 100)}:{line} {clipped(function, 100)}"
        last.append((number, shown))
        if _is_users(filename):
            users = (number, shown)
            own.add(number)
    places = [shown for _, shown in last]
    if last and 0 <= users[0] < last[0][0]:
        places[:1] = [users[1], "…"]
    else:
        # The frames of the library that called the user's code do not help anybody.
        del places[: next((at for at, (number, _) in enumerate(last) if number in own), 0)]
    return " > ".join(places)


def _frames(stack: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    for _ in range(_MOST_WALKED):
        if stack is None:
            return
        code = stack.tb_frame.f_code
        yield code.co_filename, stack.tb_lineno, code.co_name
        stack = stack.tb_next


@lru_cache(maxsize=1024)
def _is_users(filename: str) -> bool:
    if filename.startswith("<") or "/site-packages/" in filename or "/dist-packages/" in filename:
        return False
    return not filename.startswith(_LIBRARY_ROOTS) or "/examples/" in filename


def described(error: BaseException, *, with_text: bool) -> str:
    """Returns the stacks of *error* and of its causes, without local variables. The library's own errors have a text.

    A long chain, a wide group or a deep stack is shown in part.
    """
    parts: list[str] = []
    seen: set[int] = set()
    waiting: deque[BaseException | None] = deque([error])
    while waiting:
        current = waiting.popleft()
        if current is None or id(current) in seen:
            continue
        if len(parts) == _MOST_ERRORS:
            parts.append("… (more errors)")
            break
        seen.add(id(current))
        parts.append(_one(current, with_text=with_text))
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(current.exceptions[:_MOST_ERRORS])
        waiting.append(current.__cause__ or (None if current.__suppress_context__ else current.__context__))
    return "\ncaused by:\n".join(parts)


def _one(error: BaseException, *, with_text: bool) -> str:
    frames: deque[str] = deque(maxlen=_MOST_FRAMES)
    walked = 0
    for filename, line, function in _frames(error.__traceback__):
        walked += 1
        frames.append(f'  File "{clipped(filename, 300)}", line {line}, in {clipped(function, 100)}\n')
    more = f"  … ({walked - len(frames):,} more frames)\n" if walked > len(frames) else ""
    kind: Any = type(error)
    name = clipped(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."), _MOST_NAME)
    text = text_of(error) if with_text else shown_text(error)
    return f"{more}{''.join(frames)}{name}{f': {text}' if text else ''}"
