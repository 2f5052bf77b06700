"""Environments of other libraries, which are never dependencies of this project: made once, under ``.cache/``."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

__all__ = ["PeerAbsentError", "interpreter"]

_CACHE: Final = Path(__file__).parent.parent / ".cache"
#: What each environment holds. uvloop as for everybody else.
_NEEDS: Final = {
    "faststream": ("faststream[rabbit]==0.7.8", "uvloop"),
    "persist-queue": ("persist-queue==1.1.0",),
    "litequeue": ("litequeue==0.9",),
    "bytewax": ("bytewax==0.21.1",),
    "dask": ("dask==2026.8.0", "cytoolz==1.2.0"),
    "distributed": ("distributed==2026.8.0",),
    "ray": ("ray==2.60.0",),
}


class PeerAbsentError(Exception):
    """A peer cannot be had here; the text says why."""


def interpreter(environment: str) -> str:
    """The Python that programs of *environment* run with; made now if need be.

    Raises:
        PeerAbsentError: it cannot be installed.
    """
    if environment == "ours":
        return sys.executable
    directory = _CACHE / environment
    python = directory / "bin" / "python"
    complete = directory / ".complete"
    needs = " ".join(_NEEDS[environment])
    if not complete.exists() or complete.read_text() != needs:
        venv.create(directory, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "-q", *_NEEDS[environment]]
        installed = subprocess.run(command, capture_output=True, text=True, check=False)
        if installed.returncode != 0:
            reason = (installed.stderr.splitlines() or ["pip gave no reason"])[-1]
            raise PeerAbsentError(f"{needs} cannot be installed: {reason}")
        complete.write_text(needs)
    return str(python)
