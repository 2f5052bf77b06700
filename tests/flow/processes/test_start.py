"""What a worker process loads before it works: each module takes time, in each worker process of each flow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from broadway_py import Flow, Window
from tests.flow.processes import works

#: Modules of Python that most flows need nowhere in a worker process.
SELDOM: Final = {
    "cloudpickle",
    "decimal",
    "difflib",
    "fnmatch",
    "gzip",
    "hashlib",
    "ipaddress",
    "pathlib",
    "sysconfig",
    "urllib.parse",
    "zoneinfo",
}
#: Modules of ours that only the parent needs.
OF_PARENTS: Final = {
    "broadway_py.flow.description.chain",
    "broadway_py.flow.description.checks",
    "broadway_py.flow.description.explain",
    "broadway_py.flow.flow",
    "broadway_py.flow.progress",
    "broadway_py.flow.running.one_run",
    "broadway_py.flow.running.runners.processes",
    "broadway_py.flow.stages.flow_exit",
    "broadway_py.flow.stages.memory_stage",
    "broadway_py.process.worker_process",
    "broadway_py.stage.iterable",
    "broadway_py.stage.supervisor",
}
#: Modules of ours for windows, and for stages that gather what windows emit.
OF_WINDOWS: Final = {
    "broadway_py._core.window.effects",
    "broadway_py._core.window.engine",
    "broadway_py._core.window.saved",
    "broadway_py.flow.work.gathering",
    "broadway_py.flow.work.windows",
}
#: Modules that only what needs keys, or event times, loads.
OF_KEYS: Final = {"broadway_py.flow.keys", "broadway_py.flow.stages.routing", "uuid"}


def in_a_worker(flow: Flow[Any]) -> set[str]:
    """Return the modules that a worker process has loaded when it works."""
    (loaded,) = flow.using("processes", workers=1)
    return set(loaded)


def of_every_program() -> set[str]:
    """Return the modules of asyncio, and those that this environment loads into each interpreter."""
    program = "import asyncio, json, sys; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    return set(json.loads(loaded))


def test_a_worker_process_loads_only_what_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("roses\n")

    loaded = in_a_worker(Flow.from_files(file).partition().map(works.loaded_modules))

    assert "broadway_py.flow.work.global_window" in loaded
    assert (loaded & (SELDOM | OF_KEYS)) - of_every_program() == set()
    assert loaded & (OF_PARENTS | OF_WINDOWS) == set()


def test_a_worker_process_with_windows_loads_what_windows_need() -> None:
    window = Window.fixed("1m", by=works.by_time)

    windowed = Flow.from_iterable([("user", 1)]).partition(window=window).reduce(list, works.follow)
    loaded = in_a_worker(windowed.departition(list, works.follow, works.loaded_modules))

    assert loaded >= OF_WINDOWS
    assert loaded & OF_PARENTS == set()
    assert (loaded & SELDOM) - of_every_program() == {"hashlib"}
