"""``broadway run --reload``: runs the daemon in a process of its own, and starts it anew when a file has changed.

A change is checked first, by ``broadway check`` in another process. What runs goes on until the check has passed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from broadway_py.daemon.process.signal_queue import SignalQueue
from broadway_py.daemon.process.startup import begun
from broadway_py.errors import OptionsError

__all__ = ["FileWatch", "Reloading"]

#: The most names of files in one sentence.
_MOST_NAMED: Final = 3
#: How long changes are gathered, in milliseconds: an editor writes several files at once, and git many.
_GATHERED: Final = 300


class _Stop(Enum):
    """A signal asks for the end."""

    STOP = "stop"


_SIGNALS: Final[Mapping[int, _Stop]] = dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), _Stop.STOP)


@dataclass(frozen=True, slots=True)
class _Changed:
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Blind:
    """Files cannot be watched."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Ended:
    process: subprocess.Popen[bytes]
    #: What it has written to its standard error, if that was kept.
    said: bytes


class FileWatch:
    """Watches the Python files below a directory, and the settings files.

    Raises:
        OptionsError: the library that watches files is not installed.
    """

    def __init__(self, project: Path, settings: Sequence[Path]) -> None:
        try:
            import watchfiles  # noqa: F401, PLC0415  # an extra
        except ImportError as missing:
            raise OptionsError(
                (), "--reload needs watchfiles, which is not installed: pip install 'broadway-py[reload]'"
            ) from missing
        files = [Path(os.path.abspath(file)) for file in settings]  # noqa: PTH100  # it removes "..", Path does not
        self._settings = frozenset(map(str, files))
        elsewhere = {file.parent for file in files if not file.is_relative_to(project)}
        #: Directories, each with whether its subdirectories are watched, too.
        self._places: tuple[tuple[Path, bool], ...] = ((project, True), *((folder, False) for folder in elsewhere))

    @contextmanager
    def reporting(self, report: Callable[[_Changed | _Blind], None]) -> Iterator[None]:
        """Calls *report* in another thread when files have changed, while the block runs."""
        end = threading.Event()
        threads = [threading.Thread(target=self._watch, args=(*place, report, end)) for place in self._places]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            end.set()
            for thread in threads:
                thread.join()

    def _watch(
        self, folder: Path, is_project: bool, report: Callable[[_Changed | _Blind], None], end: threading.Event
    ) -> None:
        from watchfiles import Change, PythonFilter, watch  # noqa: PLC0415  # an extra

        of_python = PythonFilter()

        def counts(change: Change, path: str) -> bool:
            return path in self._settings or (is_project and of_python(change, path))

        found = watch(folder, watch_filter=counts, debounce=_GATHERED, stop_event=end, recursive=is_project)
        try:
            for changes in found:
                report(_Changed(tuple(sorted({Path(path) for _, path in changes}))))
        except (OSError, RuntimeError) as failed:  # such as: this user may watch no more files
            report(_Blind(f"{folder} cannot be watched: {failed}"))


class Reloading:
    """Keeps a daemon running with the newest files that are right.

    Args:
        options: files and options of ``broadway run``.
        watch: reports changes.
        say: shows one sentence.
    """

    def __init__(self, options: Sequence[str], watch: FileWatch, say: Callable[[str], None]) -> None:
        self._options = list(options)
        self._watch = watch
        self._say = say
        self._events: SignalQueue[_Stop | _Changed | _Blind | _Ended] = SignalQueue()
        self._daemon: subprocess.Popen[bytes] | None = None
        self._check: subprocess.Popen[bytes] | None = None
        #: What the check is about.
        self._changed: tuple[Path, ...] = ()
        #: The daemon drains because of a change.
        self._is_draining = False
        #: Another daemon starts when this one has ended: the last check has passed.
        self._is_wanted = False
        self._is_stopping = False
        self._code = 0

    def run(self) -> int:
        """Blocks until a signal ends it. Returns the exit code of the daemon that ran last."""
        with self._events.signals(_SIGNALS), self._watch.reporting(self._events.put):
            # A signal that came before means the same.
            self._is_stopping = not _SIGNALS.keys().isdisjoint(begun())
            if not self._is_stopping:
                self._start()
            while self._daemon is not None or not self._is_stopping:
                self._act(self._events.take(None))
        return self._code

    def _act(self, event: _Stop | _Changed | _Blind | _Ended | None) -> None:
        match event:
            case _Stop():
                self._stop()
            case _Blind(reason):
                self._say(f"{reason}; what runs goes on, and no change is noticed")
            case _Changed(files) if not self._is_stopping:
                self._examine(files)
            case _Ended(process, _) if process is self._daemon:
                self._daemon_ended(process.returncode)
            case _Ended(process, said) if process is self._check:
                self._check = None
                self._checked(process.returncode, said)

    def _stop(self) -> None:
        self._is_stopping = True
        self._end_check()
        if self._daemon is not None:
            # Ctrl-C has reached it already. It counts two signals within a second as one.
            self._daemon.terminate()

    def _examine(self, files: tuple[Path, ...]) -> None:
        """Checks the settings and the code as they are now. An earlier check is about files that have changed since."""
        self._end_check()
        self._changed = tuple(sorted({*self._changed, *files}))
        # In a session of its own: Ctrl-C is for the daemon and for this process.
        self._check = self._process("check", stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, own_session=True)

    def _end_check(self) -> None:
        if self._check is not None:
            self._check.kill()
            self._check = None

    def _checked(self, code: int, said: bytes) -> None:
        what, self._changed = _named(self._changed), ()
        self._is_wanted = code == 0
        if code != 0:
            for line in said.decode(errors="replace").splitlines():
                self._say(line.removeprefix("broadway: "))
            runs = self._daemon is not None and not self._is_draining
            then = "what runs goes on" if runs else "nothing runs"
            self._say(f"{what}, and is not used; {then} until the next change")
        elif self._daemon is None:
            self._say(f"{what}: starting")
            self._start()
        elif not self._is_draining:
            self._say(f"{what}: draining, then starting anew")
            self._is_draining = True
            self._daemon.terminate()

    def _daemon_ended(self, code: int) -> None:
        self._daemon = None
        self._code = code if code >= 0 else 128 - code
        is_draining, self._is_draining = self._is_draining, False
        if self._is_stopping:
            return
        if not is_draining:
            self._say(f"the daemon has ended with exit code {self._code}; the next change starts it again")
        elif self._is_wanted and self._check is None:
            self._start()
        # Else files have changed during the drain. It starts when they are right.

    def _start(self) -> None:
        self._is_wanted = False
        self._daemon = self._process("run")

    def _process(
        self, command: str, *, stderr: int | None = None, stdout: int | None = None, own_session: bool = False
    ) -> subprocess.Popen[bytes]:
        # Python may take byte code for the code of a file that has changed twice within a second.
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(  # noqa: S603  # our own command
            [sys.executable, "-m", "broadway_py", command, *self._options],
            env=environ,
            stderr=stderr,
            stdout=stdout,
            start_new_session=own_session,
        )

        def wait() -> None:
            said = process.communicate()[1] or b""
            self._events.put(_Ended(process, said))

        threading.Thread(target=wait).start()
        return process


def _named(files: Iterable[Path]) -> str:
    here = Path.cwd()
    names = [str(file.relative_to(here) if file.is_relative_to(here) else file) for file in files]
    more = len(names) - _MOST_NAMED
    shown = ", ".join(names[:_MOST_NAMED])
    if more > 0:
        return f"{shown} and {more} more have changed"
    return f"{shown} {'has' if len(names) == 1 else 'have'} changed"
