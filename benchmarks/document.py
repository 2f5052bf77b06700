"""Writes the tables of ``benchmarks/bars.json`` into ``docs/performance.md``: ``python -m benchmarks.document``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import FILE
from benchmarks.rows import ROWS

__all__ = ["PAGE", "written"]

PAGE: Final = Path(__file__).parent.parent / "docs" / "performance.md"
_BEGIN: Final = "<!-- written by python -m benchmarks.document: begin -->\n"
_END: Final = "<!-- written by python -m benchmarks.document: end -->\n"


def written(page: str, found: dict[str, Any]) -> str:
    """*page* with the tables of *found*, by row, between its marks.

    Raises:
        ValueError: the page lacks the marks.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"expected the lines {_BEGIN.strip()!r} and {_END.strip()!r} in the page")
    sections = "\n".join(_section(row.name, found[row.name]) for row in ROWS if row.name in found)
    return f"{before}{begin}\n{sections}\n{end}{after}"


def _section(name: str, found: dict[str, Any]) -> str:
    machine = found["machine"]
    commit = str(found["commit"] or "none")[:12] + (" with changes" if found["changed_since_commit"] else "")
    said = (
        f"{found['taken']}, commit {commit}, {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}, load {machine['load_before']:.2f} before."
    )
    return "\n\n".join((f"### `{name}`", said, *found["tables"].values())) + "\n"


def main() -> None:
    found = json.loads(FILE.read_text(encoding="utf-8"))
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
