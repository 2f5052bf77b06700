"""Checks with mypy what the pages about tests and producers show.

``python -m tests.typing.pages`` is a part of ``make types``. The code of a page is written to a directory as its reader
would save it, and checked with the settings of this project.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python_of(page: str) -> list[str]:
    """Returns the blocks of Python of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


def main() -> int:
    pipeline, *recipes = python_of("testing.md")
    saved = {
        "orders.py": pipeline,
        "test_orders.py": "\n\n".join(recipes),
        "page_about_producers.py": "\n\n".join(python_of("producers.md")),
    }
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory, name) for name in saved]
        for path, text in zip(paths, saved.values(), strict=True):
            path.write_text(text)
        return subprocess.run([sys.executable, "-m", "mypy", *map(str, paths)], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
