"""Where and with what a measurement was made."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

__all__ = ["circumstances"]

_ROOT: Final = Path(__file__).parent.parent


def circumstances() -> dict[str, Any]:
    """Time, machine and commit. The load says whether others were at work, which makes every figure noise."""
    return {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": f"{platform.system()} {platform.release()}",
            "load_before": os.getloadavg()[0],
        },
        "commit": _git("rev-parse", "HEAD"),
        # The results of the row before are no change of what is measured.
        "changed_since_commit": _git("status", "--porcelain", "--", ".", ":!benchmarks/bars.json") != "",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _git(*command: str) -> str | None:
    try:
        told = subprocess.run(["git", *command], cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.strip()
