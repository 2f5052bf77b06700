"""How a process ended, in words."""

from __future__ import annotations

import pytest

from broadway_py._core.exits import exit_text


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-9, "killed by SIGKILL"),
        (-6, "killed by SIGABRT"),
        (-99, "killed by signal 99"),
    ],
)
def test_an_exit_code_has_one_text(code: int, text: str) -> None:
    assert exit_text(code) == text
