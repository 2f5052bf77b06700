"""What docs/flow.md shows of Ray is run as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from ast import literal_eval
from collections import Counter

import pytest

from tests.test_flow_page import PAGE, TEXT

pytestmark = pytest.mark.ray

_EXAMPLE = re.search(r"^## On a Ray cluster$.*?^```py\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_example_counts_the_words() -> None:
    assert _EXAMPLE
    program = f"from broadway_py.flow import Flow\n{_EXAMPLE[1]}"

    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PAGE.parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    words = Counter((PAGE.parents[1] / "README.md").read_text().split())
    assert literal_eval(ran.stdout) == sorted(words.items())
