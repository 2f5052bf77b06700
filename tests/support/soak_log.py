"""The file in which long runs leave a line: what was run, and what came of it."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from typing import Final

from tests.support.daemon import ROOT

__all__ = ["note"]

_HEAD: Final = """\
# Soak runs

Each line is one run of `make soak SOAK_LOG=docs/soak.md`: random faults on a real RabbitMQ under load, and the count at
the end, from outside: what the broker had confirmed to the publisher against what handlers wrote down. The seed repeats
the choices of a run. *Repeated* are messages that were handled more than once, as at-least-once allows after a loss.

| When | Commit | Minutes | What | Seed | Messages | Faults | Repeated | Lost | Grown by |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def note(
    *, minutes: float, what: str, seed: int, published: int, faults: int, repeated: int, lost: int, grown: int | None
) -> None:
    """Add a line to the file that ``SOAK_LOG`` names; nothing without it. *grown* is in bytes, if it was looked at."""
    if not (name := os.environ.get("SOAK_LOG")):
        return
    path = ROOT / name
    found = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    cells = [
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        found.stdout.strip() or "?",
        f"{minutes:g}",
        what,
        str(seed),
        f"{published:,}",
        str(faults),
        f"{repeated:,}",
        str(lost),
        "-" if grown is None else f"{grown / 1e6:.1f} MB",
    ]
    lines = (path.read_text() if path.exists() else _HEAD).splitlines(keepends=True)
    # Behind the last row of the first table: what follows it is prose.
    end = next((number for number, line in enumerate(lines) if line.startswith("## ")), len(lines))
    last = max(number for number, line in enumerate(lines[:end]) if line.startswith("|"))
    lines.insert(last + 1, f"| {' | '.join(cells)} |\n")
    path.write_text("".join(lines))
