"""The programs of Flow's rows run, count what they did, and check their own results, with very little work."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks import flow_words_file
from benchmarks.flow_rows import FLOW_ROWS
from benchmarks.flow_words_file import check, words_file
from benchmarks.row import Program
from benchmarks.rows import ROWS

_ROOT: Final = Path(__file__).parents[2]
#: Not a whole number of lines, and fewer than one list of lines.
_WORDS: Final = 1_234
_LITTLE: Final = {
    "flow_words": _WORDS,
    "flow_words_peer": _WORDS,
    "flow_words_ray": _WORDS,
    "flow_numbers": 10,
    "flow_start": 1,
    "flow_threads": 4,
    "flow_tasks": 4,
}
_QUICK: Final = {"flow_threads": ("--seconds=0.01",), "flow_tasks": ("--seconds=0.01",)}
#: Those that start other processes.
_WITH_CHILDREN: Final = ("flow_words", "flow_words_peer", "flow_words_ray", "flow_start")
#: The programs of one row that start a Ray cluster, which takes a quarter of a minute. The ways differ in no more than
#: they do in worker processes, so one of them is enough.
_ON_RAY: Final = {
    program for row in FLOW_ROWS for program in row.programs if "--ray" in program.arguments or "ray" in program.module
}
_NOT_RUN: Final = {program for program in _ON_RAY if program.arguments[:1] in {("combine",), ("partition",)}}
_PROGRAMS: Final = list(
    {
        (program.module, program.arguments): pytest.param(
            row.name,
            program,
            id=f"{row.name}, {program.name}",
            marks=(pytest.mark.ray,) if program in _ON_RAY else (),
        )
        for row in FLOW_ROWS
        for program in row.programs
        if program.environment == "ours" and program not in _NOT_RUN
    }.values()
)


def test_the_rows_of_flow_are_measured() -> None:
    assert [row for row in ROWS if row.name.startswith("flow_")] == list(FLOW_ROWS)
    assert set(_LITTLE) == {row.name for row in FLOW_ROWS}


@pytest.mark.parametrize(("row", "program"), _PROGRAMS)
def test_a_program_of_a_row_does_a_little_work(row: str, program: Program) -> None:
    command = [sys.executable, "-m", program.module, *program.arguments, f"--messages={_LITTLE[row]}", "--gate"]

    ended = subprocess.run(
        [*command, *_QUICK.get(row, ())], cwd=_ROOT, input="go\n", capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    ready, told = ended.stdout.splitlines()
    measured: dict[str, Any] = json.loads(told)
    assert ready == "ready"
    assert measured["messages"] == _LITTLE[row]
    # Ray waits for its processes after the report.
    is_alone = program.module == "benchmarks.limits.flow_words_loop" or program in _ON_RAY
    starts_processes = row in _WITH_CHILDREN and not is_alone
    assert (measured["children_peak_rss_bytes"] > 0) == starts_processes


def test_the_text_has_so_many_words_and_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_words_file, "_DIRECTORY", tmp_path / "once")
    text = words_file(25).read_text(encoding="utf-8")
    random.random()
    monkeypatch.setattr(flow_words_file, "_DIRECTORY", tmp_path / "again")

    assert words_file(25).read_text(encoding="utf-8") == text
    assert [len(line.split()) for line in text.splitlines()] == [10, 10, 5]
    assert {len(word) for word in text.split()} == {9}


def test_a_text_that_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_words_file, "_DIRECTORY", tmp_path)
    first = words_file(25)
    made = first.stat().st_mtime_ns

    assert words_file(25).stat().st_mtime_ns == made
    assert sorted(file.name for file in tmp_path.iterdir()) == ["25.digest", "25.txt"]


def test_only_the_counts_of_the_text_pass_and_each_word_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_words_file, "_DIRECTORY", tmp_path)
    path = words_file(25)
    counts: dict[str, int] = {}
    for word in path.read_text(encoding="utf-8").split():
        counts[word] = counts.get(word, 0) + 1
    first, *others = counts.items()

    check(path, counts)
    check(path, reversed(counts.items()))
    for wrong in ([*others, (first[0], first[1] + 1)], others, [first, first, *others]):
        with pytest.raises(RuntimeError, match=r"^expected the counts of 25\.txt; got \d+ pairs, \d+ words, which"):
            check(path, wrong)
