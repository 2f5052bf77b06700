"""A process without a connection to its parent ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Final

#: The program starts a child whose only thread of Python is blocked, and waits for its own end.
PROGRAM: Final = """
import os, signal, subprocess, sys

child = "from broadway_py.process.parent_watch import end_with_parent; end_with_parent(); print(flush=True); input()"
reading, writing = os.pipe()
subprocess.Popen([sys.executable, "-c", child], stdin=reading, pass_fds=[writing])
signal.pause()
"""


def test_a_process_ends_soon_after_its_parent_although_the_parent_is_a_zombie() -> None:
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)
    assert program.stdout is not None
    with program.stdout as output:
        assert output.readline() == b"\n"
        os.kill(program.pid, signal.SIGKILL)
        # Nobody has collected the program yet. The child's end closes the output.
        assert output.read() == b""
        assert program.wait() == -signal.SIGKILL
