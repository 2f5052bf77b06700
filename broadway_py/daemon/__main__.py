"""Runs a worker: ``python -m broadway_py.daemon COMMANDS REPORTS JOURNAL``. Its supervisor starts it in this way.

The arguments are the numbers of three inherited descriptors: two pipes and the file of the in-flight journal.
"""

import sys

from broadway_py.daemon.process.startup import begin_worker

if __name__ == "__main__":
    begin_worker()
    from broadway_py.daemon.process.main_thread import leave
    from broadway_py.daemon.workers.worker import main

    leave(main(*map(int, sys.argv[1:4])))
