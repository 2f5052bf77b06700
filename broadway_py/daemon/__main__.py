"""Runs a worker: ``python -m broadway_py.daemon COMMANDS REPORTS JOURNAL``. Its supervisor starts it in this way.

The arguments are the numbers of three inherited descriptors: two pipes and the file of the in-flight journal.
``python -m broadway_py.daemon check RESULT`` checks settings for the supervisor.
"""

import sys

from broadway_py.daemon.process.collector import importing
from broadway_py.daemon.process.load_structlog import load_structlog
from broadway_py.daemon.process.startup import begin_worker

if __name__ == "__main__":
    begin_worker()
    is_check = sys.argv[1] == "check"
    with importing():
        load_structlog()
        from broadway_py.daemon.process.main_thread import leave

        if is_check:
            from broadway_py.daemon.workers.checking import main as check
        else:
            from broadway_py.daemon.workers.worker import main

    leave(check(int(sys.argv[2])) if is_check else main(*map(int, sys.argv[1:4])))
