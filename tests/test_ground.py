"""The ground that tests stand on: CI skips nothing silently, and set-up says what is missing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SUITE = """
import pytest

@pytest.fixture
def broker(): pytest.skip("no RabbitMQ")

@pytest.mark.integration
def test_needs_a_broker(broker): pass

def test_needs_none(): pytest.skip("not on this machine")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyprojecttoml(
        '[tool.pytest.ini_options]\nmarkers = ["integration"]\nasyncio_default_fixture_loop_scope = "function"\n'
    )
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makepyfile(SUITE)
    return pytester


def test_a_skipped_integration_test_fails_in_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    ran = suite.runpytest_inprocess()

    ran.assert_outcomes(errors=1, skipped=1)
    ran.stdout.fnmatch_lines("*an integration test may not be skipped under CI=true: Skipped: no RabbitMQ")


def test_a_skipped_integration_test_is_only_skipped_elsewhere(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)

    suite.runpytest_inprocess().assert_outcomes(skipped=2)


def test_set_up_without_a_fitting_python_says_what_to_install(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["/bin/sh", ROOT / "tests" / "support" / "make_venv.sh", tmp_path / "venv", ""],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ran.returncode == 1
    assert ran.stderr == (
        "expected Python 3.11 or newer with its venv module, "
        "found none as python3.13, python3.12, python3.11, python3 or python.\n"
        "Install one (Debian, Ubuntu: apt-get install python3 python3-venv), "
        "or name it: make PYTHON=/path/to/python3\n"
    )
