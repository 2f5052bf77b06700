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

#: What writing to a stream that was open may come to, besides a reader that has gone.
_NOT_WRITTEN: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF, errno.EFBIG})

_closed: set[str] = set()
#: For terminals that cannot draw.
_PLAIN: Final = {ord("└"): "`", ord("─"): "-", ord("→"): "->", ord("…"): "..."}


def prepare() -> None:
    """Open what is closed, and let no letter that a terminal cannot write stop a command.

    Before anything else is opened: a file would take the place of a closed stream, and get what is meant for that.
    """
    if not os.environ.get("TERMINAL_WIDTH", "0").isdecimal():
        # Read as a number by the library of the command line, while it is imported.
        del os.environ["TERMINAL_WIDTH"]
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
    failed = ended.__context__
    if not isinstance(failed, OSError) or failed.errno != errno.EPIPE:
        try:
            sys.stdout.flush()
        except OSError as refused:
            failed = refused
        except ValueError:  # closed meanwhile: there is nothing to be written
            failed = None
        else:
            failed = None
    if isinstance(failed, OSError):
        # The command line handles a reader that has gone by itself, with a code that means a crash here.
        refuse_output(failed, ended.code)
    sys.exit(ended.code)


def refuse_output(failed: OSError, code: str | int | None = None) -> None:
    """Exit if *failed* says that an output takes no more: without a word if its reader has gone, else with a sentence.

    *code* is what the process was to end with; None or 0: that of a crash.
    """
    if failed.errno == errno.EPIPE:
        _leave(CUT_OFF)
    if failed.errno not in _NOT_WRITTEN or failed.filename is not None:
        return
    wrong: BaseException | None = failed
    while wrong is not None and not code:
        # What was to be said is that something is wrong: that has a code of its own.
        code = getattr(wrong, "exit_code", None)
        wrong = wrong.__context__
    with suppress(OSError):
        print(f"broadway: the output cannot be written: {os.strerror(failed.errno or 0)}", file=sys.stderr, flush=True)
    _leave(code or 1)


def _leave(code: str | int) -> NoReturn:
    # What is left cannot be written, and Python would say so once more at the end.
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)
    sys.exit(code)
