"""The project of a user, tested with the kit alone: as its owner runs it, and with the same class on real brokers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.kit_plugin import LOAD_PLUGIN

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = ROOT / "tests" / "user-repository"


def test_its_tests_pass_without_a_broker(tmp_path: Path) -> None:
    copy = tmp_path / "shop"
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns("__pycache__"))

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *LOAD_PLUGIN, "-p", "no:cacheprovider"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert ran.returncode == 0, ran.stdout
    assert re.search(r"^2\d passed in ", ran.stdout, re.MULTILINE)


def test_it_has_twenty_tests_of_its_pipeline_and_none_of_them_sleeps() -> None:
    text = (REPOSITORY / "tests" / "test_orders.py").read_text()

    assert text.count("async def test_") + 3 >= 20  # one of them has four cases
    assert "sleep" not in text
