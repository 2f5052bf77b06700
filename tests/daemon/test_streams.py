"""Commands on terminals that cannot write all letters, and with streams that are closed, full or cut off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = """\
pipelines:
  ordärs-✓:
    class: tests.daemon.pipelines:Plain
    producer: {kind: queue, path: q.db, queue: a}
"""


def shell(folder: Path, line: str, **environ: str) -> tuple[int, str, str]:
    """Exit code and output of *line*, where ``broadway`` is the command."""
    (folder / "a.yaml").write_text(SETTINGS)
    (folder / "bad.yaml").write_text("pipelines: {a: {class: 'ünï:✓'}}\n")
    done = subprocess.run(
        ["/bin/bash", "-c", line.replace("broadway ", f"{sys.executable} -m broadway_py ")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


@pytest.mark.parametrize(
    "environ",
    [
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii", "TERM": "dumb", "COLUMNS": "1"},
        {"PYTHONIOENCODING": "latin-1", "TERMINAL_WIDTH": "wide", "COLUMNS": "wide"},
    ],
    ids=["C", "ascii", "latin-1"],
)
def test_a_terminal_that_cannot_write_a_letter_stops_no_command(tmp_path: Path, environ: dict[str, str]) -> None:
    code, out, err = shell(tmp_path, "broadway topology a.yaml && broadway --help", **environ)
    assert (code, err) == (0, "")
    assert "`- processors" in out
    assert shell(tmp_path, "broadway check bad.yaml", **environ)[0] == 2


@pytest.mark.parametrize(
    ("line", "code", "err"),
    [
        ("broadway check a.yaml >&-", 0, ""),
        ("broadway check bad.yaml 2>&-", 2, ""),
        ("broadway --help <&- >&- 2>&-", 0, ""),
        (
            "broadway send a.yaml <&-",
            2,
            "broadway: send: standard input is closed; name a file whose lines are to be sent\n",
        ),
        ("broadway check a.yaml >/dev/full", 1, "broadway: the output cannot be written: No space left on device\n"),
        ("broadway --help >/dev/full", 1, "broadway: the output cannot be written: No space left on device\n"),
        ("broadway check bad.yaml 2>/dev/full", 2, ""),
        ("broadway nosuch 2>/dev/full", 2, ""),
        ("broadway check a.yaml | true; exit ${PIPESTATUS[0]}", 141, ""),
        ("broadway --help | true; exit ${PIPESTATUS[0]}", 141, ""),
    ],
)
def test_a_stream_that_is_not_there_changes_no_exit_code(tmp_path: Path, line: str, code: int, err: str) -> None:
    got, _, said = shell(tmp_path, line)
    assert (got, said) == (code, err)


def test_a_closed_stream_never_becomes_the_file_that_is_opened_next(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("one\n")
    assert shell(tmp_path, "broadway send a.yaml lines <&- >&- 2>&-")[0] == 0
    code, out, _ = shell(tmp_path, "broadway send a.yaml lines")
    assert (code, out) == (0, "1 line was put on the queue\n")
