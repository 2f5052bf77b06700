"""The runner itself: which sabotages count as noticed, on a project of three lines."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.sabotage import run

CODE = """\
def double(number):
    result = number + number
    return result
"""

TESTS = """\
import threading

import pytest

from broadway_py.sums import double


def test_it_doubles():
    assert double(3) == 6


@pytest.mark.parametrize("number", [0, 3])
def test_some_of_its_cases_notice(number):
    assert double(number) == 2 * number


def test_it_looks_elsewhere():
    assert double(0) == 0


@pytest.fixture
def doubled():
    assert double(3) == 6


def test_its_set_up_notices(doubled):
    pass


def test_it_hangs_instead_of_failing():
    if double(3) != 6:
        threading.Event().wait()


@pytest.mark.skip(reason="no broker")
def test_it_needs_a_broker():
    pass


def test_it_is_red_anyhow():
    assert double(3) == 7
"""

DIFF = """\
--- a/broadway_py/sums.py
+++ b/broadway_py/sums.py
@@ -1,3 +1,3 @@
 def double(number):
-    result = number + number
+    result = number
     return result
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    for name, text in {
        "broadway_py/__init__.py": "",
        # The environment has the plug-in of pytest that the real package brings.
        "broadway_py/testing/__init__.py": "",
        "broadway_py/testing/plugin.py": "",
        "broadway_py/sums.py": CODE,
        "tests/__init__.py": "",
        "tests/test_sums.py": TESTS,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "tests/sabotage/patches").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    monkeypatch.setattr(run, "_TEST_S", 2)
    monkeypatch.delenv("CI", raising=False)
    return root


def sabotage(root: Path, name: str, *tests: str, diff: str = DIFF) -> None:
    red = "".join(f"Red: tests/test_sums.py::{test}\n" for test in tests)
    (root / f"tests/sabotage/patches/{name}.patch").write_text(f"Defect: it does not double\n{red}\n{diff}")


def examined(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    """The exit status, and the lines of the table without times and pytest's own words."""
    status = run.main(list(words), root=root)
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("    | ")]
    return status, [re.sub(r" +", " ", re.sub(r"[\d.]+ s  ", "", line)) for line in lines]


def test_a_sabotage_is_noticed_when_every_named_test_fails(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sabotage(project, "01-half", "test_it_doubles", "test_some_of_its_cases_notice")

    assert examined(project, capsys) == (0, ["01-half noticed it does not double", "1 passed, 0 failed"])
    assert (project / "broadway_py/sums.py").read_text() == CODE


def test_what_proves_nothing_is_a_failure(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = "tests/test_sums.py::test_it"
    sabotage(project, "01-seen", "test_it_doubles")
    sabotage(project, "02-unseen", "test_it_doubles", "test_it_looks_elsewhere")
    sabotage(project, "03-set-up", "test_its_set_up_notices")
    sabotage(project, "04-hangs", "test_it_hangs_instead_of_failing")
    sabotage(project, "05-red", "test_it_is_red_anyhow")
    sabotage(project, "06-skipped", "test_it_needs_a_broker")
    sabotage(project, "07-stale", "test_it_doubles", diff=DIFF.replace("number + number", "2 * number"))

    status, lines = examined(project, capsys)

    assert status == 1
    assert lines[0] == "some of the named tests fail without any sabotage:"
    assert "> assert double(3) == 7" in lines, "pytest says why"
    del lines[: lines.index("01-seen noticed it does not double")]
    assert lines[1:3] == [
        f"02-unseen FAILED sabotage 02-unseen was not noticed: {test}_looks_elsewhere passes all the same",
        (
            f"03-set-up FAILED sabotage 03-set-up was not noticed: {test}s_set_up_notices could not be set up, "
            "which proves nothing"
        ),
    ]
    assert lines[3].startswith("04-hangs FAILED its tests did not run to an end, which proves nothing: ")
    assert lines[4:6] == [
        f"05-red FAILED {test}_is_red_anyhow fails without the sabotage, too",
        "06-skipped skipped its tests are skipped here: no broker",
    ]
    assert lines[6].startswith("07-stale FAILED the sabotage no longer applies: refresh it (error: patch failed: ")
    # A log may be cut to its last lines, so they tell the failures again.
    assert lines[7:] == ["1 skipped", "Failed:", *lines[1:5], lines[6], "1 passed, 5 failed"]


def test_words_choose_among_the_sabotages_and_none_is_no_success(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(project, "01-half", "test_it_doubles")
    sabotage(project, "02-other", "test_it_looks_elsewhere")

    assert examined(project, capsys, "half")[0] == 0
    monkeypatch.setattr(run, "_run_tests", None)  # no test may run
    assert examined(project, capsys, "nothing") == (1, ["0 passed, 0 failed"])


def test_a_test_that_is_not_there_is_told_by_pytest(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sabotage(project, "01-half", "test_that_was_renamed")

    status, lines = examined(project, capsys)

    assert status == 1
    assert "ERROR: not found: " in "\n".join(lines)
    assert lines[-2:] == [
        "01-half FAILED tests/test_sums.py::test_that_was_renamed was not found",
        "0 passed, 1 failed",
    ]
    assert "Failed:" in lines


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (DIFF, "01.patch: expected a line 'Defect: …', lines 'Red: tests/….py::test_…', then a diff"),
        (
            "Defect: x\nRed: tests/test_sums.py::test_it_doubles\n" + DIFF.replace("broadway_py", "tests"),
            "01.patch: it changes tests/sums.py; a sabotage breaks the package and nothing else",
        ),
    ],
)
def test_a_patch_must_say_what_it_breaks_and_break_the_package_alone(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "01.patch").write_text(text)

    with pytest.raises(run.PatchError) as wrong:
        run.load(tmp_path)

    assert str(wrong.value) == sentence


def test_every_patch_of_this_project_can_be_read() -> None:
    sabotages = run.load(Path(run.__file__).parent / "patches")

    assert len({each.name.partition("-")[0] for each in sabotages}) == len(sabotages) >= 30
