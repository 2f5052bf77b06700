"""What the page about stages shows is run as it stands, and prints what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "stages.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$.*?^```text\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_every_program_of_the_page_is_followed_by_what_it_prints() -> None:
    assert len(PROGRAMS) == PAGE.read_text().count("```python\n") == 4


@pytest.mark.parametrize(("program", "printed"), PROGRAMS)
def test_a_program_of_the_page_prints_what_the_page_says(program: str, printed: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )

    assert (ran.stdout, ran.stderr) == (printed, "")
