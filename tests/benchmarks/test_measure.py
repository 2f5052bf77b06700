"""What a measured program says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[2]
_MIB: Final = 2**20
_MUCH: Final = 300 * _MIB

#: A program that is large itself, and starts a measured one.
_LARGE: Final = f"""
import subprocess, sys
much = bytearray({_MUCH})
much[::4096] = b"x" * len(much[::4096])
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""
_MEASURED: Final = """
from benchmarks.measure import Meter
Meter().report("nothing", 1)
"""
_WITH_CHILD: Final = f"""
import subprocess, sys
from benchmarks.measure import Meter
meter = Meter()
subprocess.run([sys.executable, "-c", "sum(range(3_000_000)); bytearray({_MUCH})[::4096] = b'x' * ({_MUCH} // 4096)"])
meter.report("a child", 1)
"""


def told(*command: str) -> dict[str, Any]:
    ended = subprocess.run([sys.executable, *command], cwd=_ROOT, capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(ended.stdout)
    return measured


def test_memory_is_that_of_the_program_and_not_of_the_one_that_started_it() -> None:
    measured = told("-c", _LARGE, _MEASURED)

    assert 0 < measured["peak_rss_bytes"] < _MUCH / 2
    assert measured["children_peak_rss_bytes"] == 0


def test_memory_and_processor_time_of_children_count_once_they_have_ended() -> None:
    alone, measured = told("-c", _MEASURED), told("-c", _WITH_CHILD)

    assert measured["peak_rss_bytes"] < _MUCH / 2 < _MUCH < measured["children_peak_rss_bytes"]
    assert measured["cpu_seconds"] > alone["cpu_seconds"]


def test_the_time_ends_when_the_clock_is_stopped() -> None:
    measured = told(
        "-c",
        """
from unittest.mock import patch
from benchmarks.measure import Meter
with patch("time.perf_counter", iter([10.0, 13.0, 20.0]).__next__):
    meter = Meter()
    meter.stop()
    meter.report("stopped", 1)
""",
    )

    assert measured["seconds"] == 3.0
