"""Mutation testing of the modules on which everything rests, with mutmut: ``make mutation``.

mutmut makes small changes, one at a time, and runs ``tests/core``: a change that no test notices has survived. It runs
in a copy of the tree and in an environment of its own (``.cache/mutation``), so the project does not depend on it. The
exit status is 1 when in one of the modules fewer than :data:`LEAST_KILLED` of the changes were noticed. With words as
arguments, only the modules whose names hold one of them take part.

Each of mutmut's changes must be noticed in one run of the tests by one process; a test whose parameters are used up by
its first run (a generator, say) does not work there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.sabotage.tree import copy_tree

__all__ = ["LEAST_KILLED", "main"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_ENVIRONMENT: Final = _ROOT / ".cache" / "mutation"
_MUTMUT: Final = "mutmut==3.8.1"
#: Below ``broadway_py._core``.
_MODULES: Final = (
    "settlement",
    "demand",
    "batching",
    "buffer",
    "dispatch.broadcast",
    "dispatch.demand",
    "dispatch.partition",
    "window.aligned",
    "window.assign",
    "window.engine",
    "window.firing",
    "window.keyed",
    "window.saved",
    "window.session",
    "window.shape",
    "window.spec",
    "window.ticks",
    "window.timed",
    "window.times",
    "window.trigger",
    "window.untimed",
    "window.watermark",
)

#: Of a module's mutants, this part must be noticed.
LEAST_KILLED: Final = 0.9

# The tests with random streams, and those of what is kept, take seconds for each change. So it is the quick tests of
# the windows that must notice enough.
_SETTINGS: Final = """\
[mutmut]
source_paths = broadway_py
only_mutate =
    {files}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args =
    --hypothesis-seed=0
    --hypothesis-profile=any_failure
    --ignore=tests/core/window/test_brute_force.py
    --ignore=tests/core/window/test_keyed_streams.py
    --ignore=tests/core/window/test_memory.py{others}
"""
#: A mutant that loops for ever is noticed by its time-out.
_NOTICED: Final = ("killed", "timeout")


def main(words: Sequence[str] = ()) -> int:
    """Run mutmut, print what survived and a table; 0 when enough was noticed."""
    modules = [module for module in _MODULES if not words or any(word in module for word in words)]
    program = _mutmut()
    with tempfile.TemporaryDirectory(prefix="mutation-") as scratch:
        tree = Path(scratch) / "tree"
        copy_tree(_ROOT, tree)
        files = "\n    ".join(f"broadway_py/_core/{module.replace('.', '/')}.py" for module in modules)
        windows = {module.startswith("window.") for module in modules}
        tests = "tests/core" if False in windows else "tests/core/window"
        others = "" if True in windows else "\n    --ignore=tests/core/window"
        (tree / "setup.cfg").write_text(_SETTINGS.format(files=files, tests=tests, others=others))
        environment = {**os.environ, "PYTHONPATH": ""}
        run = subprocess.run(
            [str(program), "run", "--max-children", "2"], cwd=tree, env=environment, check=False, capture_output=True
        )
        if run.returncode:
            print(run.stdout.decode(errors="replace")[-5000:], run.stderr.decode(errors="replace")[-2000:])
            print(f"mutmut failed with status {run.returncode}: the tests must pass without a mutation first")
            return 1
        results = _output(program, tree, "results", "--all", "true")
        statuses = dict(line.strip().split(": ", 1) for line in results.splitlines() if ": " in line)
        for mutant, status in sorted(statuses.items()):
            if status not in _NOTICED:
                print(_output(program, tree, "show", mutant))
    return _judged(modules, statuses)


def _mutmut() -> Path:
    """The program, installed if need be. It sees the packages of the environment that runs us."""
    program = _ENVIRONMENT / "bin" / "mutmut"
    stamp = _ENVIRONMENT / _MUTMUT
    if not stamp.exists():
        print(f"installing {_MUTMUT} into {_ENVIRONMENT.relative_to(_ROOT)}", flush=True)
        venv.create(_ENVIRONMENT, clear=True, with_pip=True)
        python = str(_ENVIRONMENT / "bin" / "python")
        pins = str(_ROOT / "constraints.txt")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", pins, _MUTMUT], check=True)
        own = sysconfig.get_path("purelib", vars={"base": str(_ENVIRONMENT)})
        Path(own, "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
        stamp.touch()
    return program


def _output(program: Path, tree: Path, *arguments: str) -> str:
    return subprocess.run([str(program), *arguments], cwd=tree, check=True, capture_output=True, text=True).stdout


def _judged(modules: Sequence[str], statuses: dict[str, str]) -> int:
    total: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    for mutant, status in statuses.items():
        # Such as broadway_py._core.window.engine.xǁEngineǁfeed__mutmut_1.
        module = mutant.removeprefix("broadway_py._core.").rpartition(".")[0]
        total[module] += 1
        noticed[module] += status in _NOTICED
    good = True
    for module in modules:
        part = noticed[module] / total[module] if total[module] else 0.0
        good = good and part >= LEAST_KILLED
        print(f"_core.{module:<18} {noticed[module]:>4} of {total[module]:>4} mutants noticed, {part:.1%}")
    print(f"{sum(noticed.values())} of {sum(total.values())}; at least {LEAST_KILLED:.0%} in each file is wanted")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
