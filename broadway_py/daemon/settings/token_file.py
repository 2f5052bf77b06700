"""Reads the token that a client must send to control the daemon over HTTP."""

from __future__ import annotations

import os
import stat
from typing import Final

from broadway_py.errors import OptionsError
from broadway_py.text_files import NotText, decoded

__all__ = ["is_readable_by_others", "read_token"]

#: Sixteen random characters are too many to guess over a network.
_LEAST: Final = 16
_MOST_BYTES: Final = 1024
_MAKE: Final = "make one with: openssl rand -hex 32"


def read_token(file: str) -> str:
    """Returns the token in *file*, without blanks and line breaks around it.

    Raises:
        OptionsError: the file cannot be read, or it holds no token. The error never shows the content.
    """
    try:
        raw = _read(file)
    except OSError as failed:
        raise OptionsError(
            (),
            f"the file {file!r} cannot be read: {failed.strerror}; it must exist, hold a token, and be readable for "
            "the user of the daemon",
        ) from None
    except ValueError:
        raise OptionsError((), f"the file {file!r} cannot be read: no file can have that name") from None
    if raw is None:
        raise OptionsError((), f"expected a regular file that holds a token, but {file!r} is something else")
    if len(raw) > _MOST_BYTES:
        raise OptionsError((), f"expected a file that holds a token and nothing else, but {file!r} is too long")
    try:
        token = decoded(raw).strip()
    except NotText as wrong:
        raise OptionsError((), f"the file {file!r} is not {wrong.encoding} text: {wrong}") from None
    if len(token) < _LEAST:
        count = "1 character" if len(token) == 1 else f"{len(token)} characters"
        raise OptionsError(
            (), f"expected a token of at least {_LEAST} characters in the file {file!r}, got {count}; {_MAKE}"
        )
    # A header can carry nothing else.
    if not all("!" <= one <= "~" for one in token):
        raise OptionsError(
            (),
            f"expected one token of ASCII letters, digits and signs in the file {file!r}, got a blank, a line break or "
            f"another character; {_MAKE}",
        )
    return token


def is_readable_by_others(file: str) -> bool:
    """Returns whether every user of this machine may read *file*. It returns False if that cannot be found out."""
    try:
        return bool(os.stat(file).st_mode & stat.S_IROTH)  # noqa: PTH116  # the name may be no valid path
    except (OSError, ValueError):
        return False


def _read(file: str) -> bytes | None:
    """Returns the beginning of *file*, or None if it is no regular file, such as a pipe that has no end."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MOST_BYTES + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)
