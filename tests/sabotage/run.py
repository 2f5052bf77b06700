"""Puts known defects into copies of the tree, one at a time, and demands that the tests named for each notice.

``python -m tests.sabotage.run [WORD…]`` runs the patches in ``patches/`` (with words: those whose names hold one of
them). Above its diff, a patch says what it breaks and which tests must fail::

    Defect: a message is settled again after ack_immediately
    Red: tests/pipeline/test_ack_immediately.py::test_calling_it_twice_settles_once

All of these must pass without the patch, and all must fail with it, by failing: a test that cannot be set up, or that
hangs, has noticed nothing. A test that is skipped without the patch, for want of a broker, skips its sabotage.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from tests.sabotage.tree import copy_tree

__all__ = ["Cases", "PatchError", "Row", "Sabotage", "Verdict", "examine", "load", "main", "outcomes_of"]

_ROOT: Final = Path(__file__).resolve().parents[2]
#: Two cores, and a run waits for a part of its time.
_AT_ONCE: Final = 3
#: Processes of the run without a patch, as of `make test`. Few sabotages have few tests, which one process runs sooner.
_CLEAN_PROCESSES: Final = 4
_FEW: Final = 12
#: Seconds for one test, and for all tests of one sabotage.
_TEST_S: Final = 120
_RUN_S: Final = 260
#: Seconds for the run without a patch, in which every named test takes part.
_CLEAN_RUN_S: Final = 400
#: Seconds to clean up for a run that was interrupted: it may have a broker of its own.
_GRACE_S: Final = 15

#: Test -> how its cases (more than one when it is parametrised) ended: passed, failed, error or skipped.
Cases = dict[str, set[str]]


class PatchError(Exception):
    """A patch whose head or diff is not what it should be."""


class Verdict(StrEnum):
    """What became of one sabotage."""

    NOTICED = "noticed"
    SKIPPED = "skipped"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One patch: what it breaks, and who must notice."""

    name: str
    patch: Path
    defect: str
    tests: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    verdict: Verdict
    seconds: float
    sentence: str

    def __str__(self) -> str:
        return f"{self.name:<44} {self.verdict:<8} {self.seconds:5.1f} s  {self.sentence}"


def load(directory: Path) -> list[Sabotage]:
    """Every patch in *directory*, by name.

    Raises:
        PatchError: one has no defect, no test, or changes something outside the package.
    """
    return [_parsed(path) for path in sorted(directory.glob("*.patch"))]


def _parsed(path: Path) -> Sabotage:
    defects: list[str] = []
    tests: list[str] = []
    files: list[str] = []
    for line in path.read_text().splitlines():
        label, _, value = line.partition(" ")
        if label == "+++":
            files.append(value.removeprefix("b/"))
        elif not files and label == "Defect:":
            defects.append(value)
        elif not files and label == "Red:":
            tests.append(value)
    if len(defects) != 1 or not tests or not files:
        raise PatchError(f"{path.name}: expected a line 'Defect: …', lines 'Red: tests/….py::test_…', then a diff")
    foreign = [name for name in files if not name.startswith("broadway_py/")]
    if foreign:
        raise PatchError(f"{path.name}: it changes {foreign[0]}; a sabotage breaks the package and nothing else")
    return Sabotage(path.stem, path, defects[0], tuple(tests), tuple(files))


# --- trees ----------------------------------------------------------------------------------------------------------


def _apply(sabotage: Sabotage, tree: Path) -> None:
    applied = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", str(sabotage.patch)],
        cwd=tree,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)},
        check=False,
        capture_output=True,
        text=True,
    )
    if applied.returncode:
        reason = applied.stderr.strip().replace("\n", "; ")
        raise PatchError(f"the sabotage no longer applies: refresh it ({reason})")
    for name in sabotage.files:
        # Of the file before; it might pass for that of the file now.
        for compiled in (tree / name).parent.glob(f"__pycache__/{Path(name).stem}.*"):
            compiled.unlink()


# --- runs -----------------------------------------------------------------------------------------------------------


def _run_tests(tree: Path, tests: Iterable[str], limit_s: float, *, processes: int = 0) -> tuple[Cases, str]:
    """How *tests* ended in *tree*, and what pytest said. A run that hung or could not begin has no cases."""
    # Beside the tree, which is copied: a report of an earlier run would pass for one of this.
    report = tree.parent / "report.xml"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-m", "not soak and not ray", "-o", "cache_dir=.pytest_cache"),
        # The thread method ends the run without a report: a test that hangs does not look like one that failed.
        *("--timeout-method=thread", f"--timeout={_TEST_S}", f"--junitxml={report}"),
        *(("-n", str(processes)) if processes else ()),
        *sorted(set(tests)),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    environment |= {"PYTHONPATH": str(tree), "TMPDIR": str(tree.parent), "HYPOTHESIS_PROFILE": "any_failure"}
    with (tree.parent / "output.txt").open("w+") as output:
        run = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        hung = not _ended(run, limit_s)
        output.seek(0)
        said = output.read()
    if hung or not report.exists():
        return {}, f"stopped after {limit_s:g} s\n{said}" if hung else said
    return outcomes_of(report, tests), said


def _ended(run: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Whether *run* ended by itself; if not, it was made to, as gently as possible."""
    for seconds, end in ((limit_s, signal.SIGINT), (_GRACE_S, signal.SIGKILL)):
        try:
            run.wait(seconds)
        except subprocess.TimeoutExpired:
            run.send_signal(end)
        else:
            return end is signal.SIGINT
    run.wait()
    return False


def outcomes_of(report: Path, tests: Iterable[str]) -> Cases:
    """The cases of each of *tests* in pytest's JUnit *report*; one that is not there has none."""
    cases: Cases = {test: set() for test in tests}
    by_place = {_place(test): test for test in cases}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # pytest wrote it a moment ago
        test = by_place.get((case.get("classname", ""), case.get("name", "").partition("[")[0]))
        if test is not None:
            found = {child.tag for child in case}
            # A test that failed and could not be cleaned up afterwards has failed.
            ends = [end for end in ("failure", "error", "skipped") if end in found]
            cases[test].add({"failure": "failed"}.get(ends[0], ends[0]) if ends else "passed")
    return cases


def _place(test: str) -> tuple[str, str]:
    path, *rest = test.split("::")
    module = path.removesuffix(".py").replace("/", ".")
    return ".".join([module, *rest[:-1]]), rest[-1]


# --- judgement ------------------------------------------------------------------------------------------------------


def _clean_problem(tests: Sequence[str], clean: Cases) -> str | None:
    for test in tests:
        ends = clean.get(test, set())
        if "failed" in ends or "error" in ends:
            return f"{test} fails without the sabotage, too"
        if not ends:
            return f"{test} was not found"
    return None


def _judged(sabotage: Sabotage, cases: Cases, said: str) -> tuple[Verdict, str]:
    if not cases:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "no output")
        first = said.partition("\n")[0] if said.startswith("stopped after") else last
        return Verdict.FAILED, f"its tests did not run to an end, which proves nothing: {first}"
    for test in sabotage.tests:
        ends = cases[test]
        if "failed" not in ends:
            how = "could not be set up, which proves nothing" if "error" in ends else "passes all the same"
            return Verdict.FAILED, f"sabotage {sabotage.name} was not noticed: {test} {how}"
    return Verdict.NOTICED, sabotage.defect


def examine(sabotage: Sabotage, tree: Path, clean: Cases) -> Row:
    """Apply *sabotage* to a copy of *tree* and run its tests there; *clean* is how they ended without it."""
    begin = time.monotonic()

    def row(verdict: Verdict, sentence: str) -> Row:
        return Row(sabotage.name, verdict, time.monotonic() - begin, sentence)

    problem = _clean_problem(sabotage.tests, clean)
    if problem is not None:
        return row(Verdict.FAILED, problem)
    if any(clean[test] == {"skipped"} for test in sabotage.tests):
        return row(Verdict.SKIPPED, "its tests are skipped here: no broker")
    with tempfile.TemporaryDirectory(prefix="sabotage-", dir=tree.parent) as scratch:
        copy = Path(scratch) / "tree"
        shutil.copytree(tree, copy, symlinks=True)
        try:
            _apply(sabotage, copy)
        except PatchError as stale:
            return row(Verdict.FAILED, str(stale))
        cases, said = _run_tests(copy, sabotage.tests, _RUN_S)
        verdict, sentence = _judged(sabotage, cases, said)
        if verdict is Verdict.FAILED:
            sentence += "".join(f"\n    | {line}" for line in said.splitlines()[-15:])
        return row(verdict, sentence)


def main(arguments: Sequence[str] | None = None, *, root: Path = _ROOT, patches: Path | None = None) -> int:
    """Examine them all and print the table; 0 when every sabotage was noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sabotage.run", description="Break it; do the tests notice?")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only patches whose name holds one of these")
    words: list[str] = parser.parse_args(arguments).words
    try:
        found = load(patches or root / "tests" / "sabotage" / "patches")
    except PatchError as wrong:
        print(wrong)
        return 2
    chosen = [each for each in found if not words or any(word in each.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="sabotage-", ignore_cleanup_errors=True) as scratch:
        rows = _examined(chosen, root, Path(scratch) / "clean")
    failures = [row for row in rows if row.verdict is Verdict.FAILED]
    skipped = sum(row.verdict is Verdict.SKIPPED for row in rows)
    if skipped:
        print(f"{skipped} skipped")
    if failures:
        # Once more, because a log may be cut to its last lines.
        print("Failed:", *failures, sep="\n")
    print(f"{len(rows) - len(failures) - skipped} passed, {len(failures)} failed")
    return 1 if failures or not rows else 0


def _examined(chosen: Sequence[Sabotage], root: Path, tree: Path) -> list[Row]:
    if not chosen:
        return []  # pytest would run every test of the tree
    tree.mkdir()
    copy_tree(root, tree)
    localstack = root / ".cache" / "localstack"
    if localstack.is_dir():  # git ignores it; the tests of SQS start it
        (tree / ".cache").mkdir()
        (tree / ".cache" / "localstack").symlink_to(localstack.resolve())
    tests = [test for each in chosen for test in each.tests]
    clean, said = _run_tests(tree, tests, _CLEAN_RUN_S, processes=_CLEAN_PROCESSES if len(chosen) > _FEW else 0)
    if not any(clean.values()):
        print(f"the named tests did not run to an end without any sabotage:\n{said}")
    elif any(ends & {"failed", "error"} for ends in clean.values()):
        print(f"some of the named tests fail without any sabotage:\n{said}")
    rows = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for row in pool.map(lambda each: examine(each, tree, clean), chosen):
            print(row, flush=True)
            rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
