"""What is told of an error: its type and the places in the code always, its text only where that was asked for.

The text of an error often quotes what it stumbled over, in ways that no search finds again. So it is not shown unless
somebody wants to see it: ``log: {errors: text}`` for the daemon, :func:`show_error_texts` for programs.

Nothing here costs more than some milliseconds, whatever the error is made of: chains, groups, tracebacks and texts are
cut before they are looked at.
"""

from __future__ import annotations

import sysconfig
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

from pydantic_core import ValidationError

from broadway_py.errors import (
    BatchFailed,
    BroadwayError,
    DefinitionError,
    HandlerVerdict,
    MalformedMessage,
    MessageFailed,
    OptionsError,
    ProducerError,
    SettleError,
)
from broadway_py.foreign import foreign_errors, type_name

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
    "show_error_texts",
    "shown_text",
    "text_of",
]

#: Attribute of an exception that came from another process without its traceback: where it was raised there.
PLACE: Final = "_broadway_place"
#: Characters of an error's text that are kept.
MOST_TEXT: Final = 4096
_MOST_NAME: Final = 200
#: Complaints of pydantic that are looked at: a list of a million wrong entries has two million of them.
_MOST_COMPLAINTS: Final = 1_000
_TOLD_COMPLAINTS: Final = 5
#: Errors of a chain or a group that are told, and frames of each.
_MOST_ERRORS: Final = 10
_MOST_FRAMES: Final = 20
_INNERMOST: Final = 4
#: Frames that are walked through at all; an interpreter with a raised recursion limit may have any number.
_MOST_WALKED: Final = 20_000

_OUR_ROOT: Final = str(Path(__file__).parent)
_LIBRARY_ROOTS: Final = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), _OUR_ROOT})


class _Show:
    texts = False
    how = "broadway_py.log.show_error_texts() shows it"


def show_error_texts(shown: bool = True, *, how: str | None = None) -> None:  # noqa: FBT001, FBT002  # reads as a sentence
    """Show the texts of errors in the log of this process from now on, or no more.

    Words that stand in the message's payload are still hidden where they can be found. That is no promise: use it
    where the data is nobody's secret.

    Args:
        shown: False goes back to the default.
        how: what a line without the text says about how to see it.
    """
    _Show.texts = shown
    if how is not None:
        _Show.how = how


def error_texts_are_shown() -> bool:
    """True when the log shows the texts of errors."""
    return _Show.texts


def how_to_see_texts() -> str:
    """What a line says in place of a text."""
    return f"not shown, it may quote the message; {_Show.how}"


def clipped(text: str, most: int) -> str:
    """*text*, at most *most* characters of it; what is left out is counted."""
    if len(text) <= most:
        return text if type(text) is str else str.__str__(text)
    return f"{str.__getitem__(text, slice(0, most))}… ({len(text) - most:,} more characters)"


def name_of(error: BaseException) -> str:
    """The name of its type, not longer than a name should be."""
    return clipped(type_name(error), _MOST_NAME)


def text_of(error: BaseException, most: int = MOST_TEXT) -> str:
    """What *error* says, at most *most* characters. Never raises."""
    try:
        if isinstance(error, ValidationError) and error.error_count() > _MOST_COMPLAINTS:
            # Its text would be made of all of them.
            return f"{error.error_count():,} complaints about {clipped(error.title, _MOST_NAME)}"
        return clipped(str(error), most)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  # code of the user: an error that cannot say what it is
        return "(its text cannot be shown)"


def shown_text(error: BaseException) -> str | None:
    """What may be told of the text of *error* where texts are not shown: our own words; None: nothing."""
    if isinstance(error, ValidationError):
        return complaints_of(error)
    # These quote the handler of a message, or what came with it.
    quoting = HandlerVerdict | MalformedMessage | MessageFailed | BatchFailed
    if isinstance(error, BroadwayError) and not isinstance(error, quoting):
        # Classes of users may say anything; of a connector's errors the text is meant to be shown.
        ours = type(error).__module__.partition(".")[0] == "broadway_py"
        if ours or isinstance(error, ProducerError | SettleError | OptionsError | DefinitionError):
            return text_of(error)
    return None


def complaints_of(invalid: ValidationError, names: Collection[str] = ()) -> str:
    """Place and kind of the first complaints: never the input, nor the keys of a dict in it.

    Args:
        invalid: what pydantic raised.
        names: of the schema's own fields, which may be shown.
    """
    count = invalid.error_count()
    if count > _MOST_COMPLAINTS:
        return f"{count:,} complaints, too many to name one"
    complaints = [
        f"{'.'.join(_part(part, names) for part in error['loc'][:20]) or 'the whole'}: {clipped(error['type'], 60)}"
        for error in invalid.errors(include_url=False, include_context=False, include_input=False)[
            : _TOLD_COMPLAINTS + 1
        ]
    ]
    told = "; ".join(complaints[:_TOLD_COMPLAINTS])
    return f"{told}{'; …' if len(complaints) > _TOLD_COMPLAINTS else ''}"


def _part(part: int | str, names: Collection[str]) -> str:
    return str(part) if isinstance(part, int) or part in names else "***"


def place_of(error: BaseException) -> str:
    """Where *error* was raised: the innermost places, outermost first, beginning with the user's own code if there is
    any of it: file, line, function; no source, no values.
    """
    try:
        if (place := getattr(error, PLACE, None)) is not None:
            return clipped(str(place), 1000)
        stack = error.__traceback__
    except foreign_errors(cancellations=True):
        return ""  # code of the user
    return _places(_frames(stack))


def place_of_stack(frame: FrameType | None) -> str:
    """The same of a stack that runs: where *frame*, its innermost, is now."""
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
        # What of ours called the user's code is of no use to anybody.
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
    """The stack of *error* and of what caused it, without local variables; our own errors always with their text.

    A long chain, a wide group or a deep stack is told in part.
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
