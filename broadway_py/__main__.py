"""The ``broadway`` command, also as ``python -m broadway_py``. It takes signals before it starts slow imports."""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False  # type checkers know this name; the module typing takes a while to load
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Runs the ``broadway`` command, as the console script."""
    # From here on, a signal waits until it has a handler: process 1 of a container ignores signals without a handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1))
    from broadway_py.daemon.process.collector import importing  # noqa: PLC0415  # after the signals
    from broadway_py.daemon.process.load_structlog import load_structlog  # noqa: PLC0415  # after the signals
    from broadway_py.daemon.process.startup import begin_command  # noqa: PLC0415  # after the signals

    try:
        begin_command()
        with importing():
            load_structlog()
            from broadway_py.cli import main as command  # noqa: PLC0415  # after the signals
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    command()


if __name__ == "__main__":
    main()
