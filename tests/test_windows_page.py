"""What docs/windows.md shows is run as it stands, and prints what stands below it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "windows.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_examples_print_what_the_page_says() -> None:
    program = "\n".join(blocks("python"))

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "".join(blocks("text"))
    assert len(blocks("text")) == 2


def test_every_file_that_the_page_shows_is_there() -> None:
    shown = re.findall(r"\]\(([\w.]+)\)", PAGE.read_text())

    assert "watermark.svg" in shown
    assert [name for name in shown if not (PAGE.parent / name).exists()] == []
