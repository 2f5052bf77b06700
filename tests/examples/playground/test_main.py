"""The command: start a folder, check answers, show answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from broadway_py.examples.playground import solutions
from broadway_py.examples.playground.__main__ import main
from broadway_py.examples.playground.checking import EXERCISES
from broadway_py.examples.playground.generator import lines, to_file

PAGE = Path(__file__).resolve().parents[3] / "docs" / "playground.md"
RIGHT = Path(solutions.__file__).read_text()


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PLAYGROUND_DATA", raising=False)


def test_from_nothing_to_the_first_right_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["start"]) == 0
    assert main(["check", "total"]) == 1
    assert capsys.readouterr().out == (
        "playground/exercises.py: write your answers here\n"
        "playground/sample.data: 1,000 shipments\n"
        "total: not written yet.\n"
    )

    mine = Path("playground/exercises.py")
    mine.write_text(mine.read_text() + "\n\n# mine\n")
    assert main(["start"]) == 0
    assert capsys.readouterr().out.startswith("playground/exercises.py is there already, and stays as it is\n")
    assert "# mine" in mine.read_text()


def test_the_page_shows_a_wrong_answer_and_a_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text()
    main(["start"])
    mine = Path("playground/exercises.py")
    empty = mine.read_text()
    said = [capsys.readouterr().out]
    for answer in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        mine.write_text(f"{empty}\n\nimport operator\n\n{answer}")
        main(["check", "total"])
        said.append(capsys.readouterr().out)

    assert len(said) == 3
    consoles = re.findall(r"^```console\n\$ .*?\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert said == consoles[:3]


def test_the_page_has_every_exercise_and_a_real_line() -> None:
    page = PAGE.read_text()

    assert [name for name in EXERCISES if f"`{name}`" not in page] == []
    assert next(lines()) in page


def test_an_answer_that_has_just_changed_is_the_one_that_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    main(["start"])
    mine = Path("playground/exercises.py")
    said = []
    for answer in ("shipments.map(len)", "None"):
        mine.write_text(f"def total(shipments):\n    return {answer:<20}\n")  # of the same length
        os.utime(mine, (0, 0))  # and of the same second
        capsys.readouterr()
        main(["check", "total"])
        said.append(capsys.readouterr().out)

    assert said == [
        "total: wrong. The flow gives 1000 elements; one number is wanted.\n",
        "total: wrong. Expected a flow, got None; is a return missing?\n",
    ]
    assert not Path("playground/__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def total(\n", "SyntaxError in line 1: '(' was never closed."),
        ("import operator\n\nnumber = opperator\n", "NameError in line 3: name 'opperator' is not defined"),
    ],
)
def test_a_file_of_answers_that_cannot_be_loaded(text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["start"])
    Path("playground/exercises.py").write_text(text)
    capsys.readouterr()

    assert main(["check"]) == 1
    assert capsys.readouterr().out.startswith(f"playground/exercises.py cannot be loaded. {said}")


def test_all_exercises_are_checked_without_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    main(["start", "--folder", "mine"])
    Path("mine/exercises.py").write_text(RIGHT.replace("shipment.to == shipment.from_", "not shipment.to"))
    capsys.readouterr()

    assert main(["check", "--folder", "mine"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 13
    assert [line for line in said if ": right." not in line] == ["same_country: wrong. The flow gives nothing."]
    assert "writes the country that a ship leaves first" in said[4]
    assert "Times are in seconds here" in said[8]


@pytest.mark.parametrize("by_option", [True, False])
def test_other_shipments_have_other_answers(
    *, by_option: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    to_file("other.data", islice(lines(5), 20))
    if not by_option:
        monkeypatch.setenv("PLAYGROUND_DATA", "other.data")

    assert main(["answers", "total", "owners", *(["--data", "other.data"] if by_option else [])]) == 0
    total, *owners = capsys.readouterr().out.split("owners:\n")
    assert total == f"total:\n  {sum(int(line.split(', ')[4]) for line in islice(lines(5), 20))}\n"
    assert owners[0].count("\n") == 20


def test_long_answers_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    main(["start"])
    capsys.readouterr()

    main(["answers", "owners_async"])
    assert capsys.readouterr().out.endswith("  and 270 more\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "totals"], "error: there is no exercise 'totals'; there are total, reefers, "),
        (["check"], "error: there is no file playground/sample.data; the command start makes a folder with all that"),
        (["answers", "--data", "no.data"], "error: there is no file no.data; "),
    ],
)
def test_what_is_not_there_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)

    assert said in capsys.readouterr().err


def test_without_a_command_it_says_how_to_begin() -> None:
    program = [sys.executable, "-m", "broadway_py.examples.playground"]
    ran = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)

    assert (ran.returncode, ran.stderr) == (0, "")
    for part in ("1. make a folder", "playground check total", "total, reefers"):
        assert part in ran.stdout
