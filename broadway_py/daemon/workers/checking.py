"""Checks settings in a process of its own, which loads the code as it is now. The supervisor has that of its start.

The process is started by ``python -m broadway_py.daemon check RESULT``, where RESULT is a descriptor to write to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass, field

from broadway_py._core.exits import exit_text
from broadway_py.daemon.pipelines.loader import build_pipelines
from broadway_py.daemon.pipelines.reloading import sentences_of
from broadway_py.daemon.reload.aside import aside
from broadway_py.daemon.reload.code_files import CodeFiles, loaded_code
from broadway_py.daemon.settings.settings import Settings
from broadway_py.error_text import name_of
from broadway_py.errors import OptionsError

__all__ = ["Checked", "check_afresh", "main"]

#: Seconds that the process may take.
_MOST = 60.0


@dataclass(frozen=True, slots=True)
class Checked:
    """The result."""

    #: What is wrong, in sentences.
    wrong: tuple[str, ...] = ()
    #: The files of the code that the process has loaded.
    code: CodeFiles = field(default_factory=dict)


async def check_afresh(settings: Settings) -> Checked:
    """Returns what a new process finds wrong with *settings*. The process ends when this is cancelled."""
    reading, writing = os.pipe()
    with contextlib.ExitStack() as ends:
        ends.callback(os.close, writing)
        result = ends.enter_context(os.fdopen(reading, "rb"))
        process = subprocess.Popen(  # noqa: S603, ASYNC220  # our own module; it is waited for in a thread
            [sys.executable, "-m", "broadway_py.daemon", "check", str(writing)],
            pass_fds=[writing],
            stdin=subprocess.PIPE,
        )
        ends.pop_all()
    os.close(writing)
    task = pickle.dumps((settings, list(sys.path)))

    def talk() -> Checked:
        assert process.stdin is not None  # noqa: S101  # it was asked for
        with result, process:
            with contextlib.suppress(OSError):  # it has ended; the exit code says why
                process.stdin.write(task)
            with contextlib.suppress(OSError):
                process.stdin.close()
            said = result.read()
            code = process.wait()
        if said:
            checked: Checked = pickle.loads(said)  # noqa: S301  # from our own process
            return checked
        why = f"the settings cannot be checked: the process that loads the code has ended ({exit_text(code)})"
        return Checked((why,))

    try:
        async with asyncio.timeout(_MOST):
            return await aside(talk)
    except TimeoutError:
        return Checked((f"the settings cannot be checked: loading the code takes longer than {_MOST:.0f} s",))
    finally:
        process.kill()


def main(descriptor: int) -> int:
    """Checks the settings on standard input and writes the result to *descriptor*. Returns the exit code."""
    os.set_inheritable(descriptor, False)  # else a program that the user's code starts holds it open
    settings, search_path = pickle.load(sys.stdin.buffer)  # noqa: S301  # from our own process
    sys.path[:] = search_path
    wrong: tuple[str, ...] = ()
    try:
        build_pipelines(settings, share=(0, settings.workers))
    except OptionsError as refused:
        wrong = tuple(sentences_of(refused))
    except Exception as failed:  # noqa: BLE001  # the user's code
        wrong = (f"building the pipelines raised {name_of(failed)}",)
    with os.fdopen(descriptor, "wb") as result:
        result.write(pickle.dumps(Checked(wrong, loaded_code())))
    return 0
