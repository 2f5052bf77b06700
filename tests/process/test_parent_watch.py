"""A process without a connection to its parent ends with it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from typing import Final

from tests.support.eventually import PATIENCE

#: It waits for a line that does not come.
CHILD: Final = """
import os
from broadway_py.process.parent_watch import end_with_parent
end_with_parent()
print(os.getpid(), flush=True)
input()
"""
PROGRAM: Final = f"""
import os, signal, subprocess, sys
reading, writing = os.pipe()
subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=reading, pass_fds=[writing])
signal.pause()
"""


def test_a_process_ends_soon_after_its_parent_although_the_parent_is_a_zombie() -> None:
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)
    assert program.stdout is not None
    with program.stdout as output:
        child = int(output.readline())
        os.kill(program.pid, signal.SIGKILL)
        # Nobody has collected the program yet. The child's end closes the output.
        has_ended = select.select([output], [], [], PATIENCE)[0]
        if not has_ended:
            os.kill(child, signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL
    assert has_ended
