"""Handles the three standard streams if they are closed, cut off, full, or unable to write a character."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Final, NoReturn, TextIO

__all__ = ["CUT_OFF", "drawable", "finish", "is_input_closed", "prepare", "refuse_output"]

#: The exit code that a shell shows for a program whose reader (such as ``head``) has ended.
CUT_OFF: Final = 141

#: The errors of writing to a stream that was open, except that its reader has ended.
_NOT_WRITTEN: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF, errno.EFBIG})

_closed: set[str] = set()
#: Replacements for terminals that cannot show these characters.
_PLAIN: Final = {ord("└"): "`", ord("─"): "-", ord("→"): "->", ord("…"): "..."}


def prepare() -> None:
    """Opens closed streams on the null device, and makes sure that a character that cannot be written does not raise.

    Call it before any file is opened: a file would take the number of a closed stream and get the output meant for it.
    """
    if not os.environ.get("TERMINAL_WIDTH", "0").isdecimal():
        # The command-line library reads it as a number while it is imported.
        del os.environ["TERMINAL_WIDTH"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The system takes the lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)
            _closed.add(name)
        stream: TextIO | None = getattr(sys, name)
        if stream is None or name in _closed:
            _closed.add(name)
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115, PTH123  # for good
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if number == 0 else "backslashreplace")


def is_input_closed() -> bool:
    """Returns whether standard input was closed from the start."""
    return "stdin" in _closed


def drawable(text: str) -> str:
    """Returns *text*, with lines and arrows in ASCII if standard output cannot write the real ones."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return text.translate(_PLAIN)
    return text


def finish(ended: SystemExit) -> NoReturn:
    """Exits with the code of *ended*, once all output is written."""
    failed = ended.__context__
    if not isinstance(failed, OSError) or failed.errno != errno.EPIPE:
        try:
            sys.stdout.flush()
        except OSError as refused:
            failed = refused
        except ValueError:  # closed in the meantime: there is nothing to write
            failed = None
        else:
            failed = None
    if isinstance(failed, OSError):
        # The command-line library handles a reader that has ended too, but with an exit code that means a crash here.
        refuse_output(failed, ended.code)
    sys.exit(ended.code)


def refuse_output(failed: OSError, code: str | int | None = None) -> None:
    """Exits if *failed* says that an output cannot be written.

    If its reader has ended, it prints nothing; else it prints one sentence. *code* is the exit code that the process
    would have had; with None or 0, the exit code is that of a crash.
    """
    if failed.errno == errno.EPIPE:
        _leave(CUT_OFF)
    if failed.errno not in _NOT_WRITTEN or failed.filename is not None:
        return
    wrong: BaseException | None = failed
    while wrong is not None and not code:
        # The output was itself an error text, and that error has its own exit code.
        code = getattr(wrong, "exit_code", None)
        wrong = wrong.__context__
    with suppress(OSError):
        print(f"broadway: the output cannot be written: {os.strerror(failed.errno or 0)}", file=sys.stderr, flush=True)
    _leave(code or 1)


def _leave(code: str | int) -> NoReturn:
    # The rest of the output cannot be written, and Python would report this once more at exit.
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)
    sys.exit(code)
