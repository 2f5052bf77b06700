"""The three standard streams, whatever became of them: closed, cut off, full, or unable to write a letter."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Final, NoReturn, TextIO

__all__ = ["CUT_OFF", "drawable", "finish", "is_input_closed", "prepare", "refuse_output"]

#: What a shell shows for a program whose reader has gone, such as ``head``.
CUT_OFF: Final = 141

_closed: set[str] = set()
#: For terminals that cannot draw.
_PLAIN: Final = {ord("└"): "`", ord("─"): "-", ord("→"): "->", ord("…"): "..."}


def prepare() -> None:
    """Open what is closed, and let no letter that a terminal cannot write stop a command.

    Before anything else is opened: the first file would take the place of a closed stream, and get what is meant for it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, which is this one.
            os.open(os.devnull, os.O_RDWR)
            _closed.add(name)
        stream: TextIO | None = getattr(sys, name)
        if stream is None or name in _closed:
            _closed.add(name)
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115, PTH123  # for good
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if number == 0 else "backslashreplace")


def is_input_closed() -> bool:
    """Whether there was no standard input from the start."""
    return "stdin" in _closed


def drawable(text: str) -> str:
    """*text* as standard output can write it: lines and arrows in ASCII where it knows no others."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return text.translate(_PLAIN)
    return text


def finish(ended: SystemExit) -> NoReturn:
    """Exit with the code of *ended*, once all output is written."""
    context = ended.__context__
    if isinstance(context, OSError) and context.errno == errno.EPIPE:
        # The command line has handled it, by a code that means a crash here.
        _leave(CUT_OFF)
    refuse_output(None, ended.code)
    sys.exit(ended.code)


def refuse_output(failed: OSError | None, code: str | int | None = None) -> None:
    """Exit if standard output takes nothing more: without a word if its reader has gone, else with one sentence.

    *failed* is what was raised, *code* what the process was to end with.
    """
    try:
        sys.stdout.flush()
    except OSError as refused:
        if refused.errno == errno.EPIPE:
            _leave(CUT_OFF)
        with suppress(OSError):
            print(f"broadway: standard output cannot be written: {os.strerror(refused.errno or 0)}", file=sys.stderr)
        _leave(code or 1)
    except ValueError:
        # Closed by somebody; there is nothing to be written.
        return
    if failed is not None and failed.errno == errno.EPIPE:
        _leave(CUT_OFF)


def _leave(code: str | int) -> NoReturn:
    # What is left in it cannot be written, and Python would say so once more at the end.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
