"""Without Ray, the package can be imported, and every runner that does not need it works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import importlib.util
from broadway_py import Flow

assert importlib.util.find_spec("ray").origin.endswith("/without/ray.py")
for runner in ("tasks", "threads", "processes"):
    found = Flow.from_iterable(range(6)).map(lambda n: n % 2).count_by().using(runner, workers=2).to_list()
    print(runner, sorted(found))
"""


def test_no_other_runner_imports_ray_neither_in_the_program_nor_in_its_workers(tmp_path: Path) -> None:
    without = tmp_path / "without"
    without.mkdir()
    (without / "ray.py").write_text("raise ImportError('it is not installed')\n")

    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": f"{without}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (ran.stdout.splitlines(), ran.stderr) == (
        [f"{runner} [(0, 3), (1, 3)]" for runner in ("tasks", "threads", "processes")],
        "",
    )
