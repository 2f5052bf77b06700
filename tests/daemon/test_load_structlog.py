"""The daemon's processes start without rich, and whoever wants it can have it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys

from broadway_py.daemon.process.load_structlog import load_structlog

load_structlog()
load_structlog()
import structlog
import broadway_py.cli
import broadway_py.daemon.runner
import broadway_py.daemon.workers.worker

print("rich" in sys.modules)
import rich

load_structlog()
print(rich is sys.modules["rich"])
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )


def test_nothing_that_a_daemon_imports_needs_rich_and_it_can_be_imported_afterwards() -> None:
    assert run("-c", PROGRAM).stdout == "False\nTrue\n"


def test_the_command_starts_without_rich() -> None:
    ran = run("-X", "importtime", "-m", "broadway_py", "check", "config/quickstart.yaml")

    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert "structlog.dev" in imported
    # Also an import that fails is in the list: that of rich itself.
    assert not [name for name in imported if name.startswith("rich.")]
