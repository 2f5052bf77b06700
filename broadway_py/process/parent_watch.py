"""Ends a process that has no connection to its parent when the parent has ended."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

__all__ = ["end_with_parent"]

#: Seconds from one look to the next one.
_LOOK_S: Final = 1.0


def end_with_parent() -> None:
    """Has this process end soon after its parent, also while it runs code that does not return."""
    threading.Thread(target=_wait, args=(os.getppid(),), name="broadway-parent", daemon=True).start()


def _wait(parent: int) -> None:
    # A parent that nobody collects is still there, but its children get another one at once.
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)
