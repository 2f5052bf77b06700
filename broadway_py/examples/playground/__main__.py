"""The command of the playground: starts a folder, checks answers, shows them."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Final

from broadway_py.examples.playground import exercises, solutions
from broadway_py.examples.playground.checking import EXERCISES, NOT_WRITTEN, answers_of, complaint_about, told_of
from broadway_py.examples.playground.generator import lines, to_file

__all__ = ["main"]

#: Names a file with shipments that is used in place of the one that was made up.
DATA_VARIABLE: Final = "PLAYGROUND_DATA"

_NAMES: Final = textwrap.fill(", ".join(EXERCISES), 100, subsequent_indent="  ")
_HELP: Final = f"""\
Exercises for Flow, with a file of 1,000 shipments of containers.

  1. make a folder with the file and the exercises   python -m broadway_py.examples.playground start
  2. write an answer in                              playground/exercises.py
  3. check it                                        python -m broadway_py.examples.playground check total

The exercises, from easy to hard:

  {_NAMES}
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. *arguments*: those of the command line; None: those that it was called with.

    Returns:
        The exit status: 0, or 1 if an answer is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m broadway_py.examples.playground",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="start | check | answers")
    start = commands.add_parser("start", help="make a folder with the shipments and the exercises")
    check = commands.add_parser("check", help="say whether answers are right")
    answers = commands.add_parser("answers", help="show the right answers")
    for command in (start, check, answers):
        command.add_argument("--folder", type=Path, default=Path("playground"), help="default: playground")
    for command in (check, answers):
        command.add_argument("exercises", nargs="*", metavar="EXERCISE", help="without one: all")
        command.add_argument(
            "--data", type=Path, help=f"other shipments, such as the original's sample.data (or: ${DATA_VARIABLE})"
        )
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 0
    if given.command == "start":
        return _start(given.folder)

    names = given.exercises or list(EXERCISES)
    if unknown := [name for name in names if name not in EXERCISES]:
        parser.error(f"there is no exercise {unknown[0]!r}; there are {', '.join(EXERCISES)}")
    data = given.data or Path(os.environ.get(DATA_VARIABLE) or given.folder / "sample.data")
    for path in (data, given.folder / "exercises.py") if given.command == "check" else (data,):
        if not path.is_file():
            parser.error(f"there is no file {path}; the command start makes a folder with all that is needed")
    if given.command == "answers":
        return _answers(names, data)
    mine = given.folder / "exercises.py"
    try:
        answers_given = _loaded(mine)
    except Exception as error:  # noqa: BLE001  # the reader's file may raise anything
        print(f"{mine} cannot be loaded. {told_of(error, str(mine))}.")
        return 1
    return _check(names, answers_given, data)


def _start(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    mine = folder / "exercises.py"
    if mine.exists():
        print(f"{mine} is there already, and stays as it is")
    else:
        mine.write_text(Path(exercises.__file__).read_text("utf-8"), "utf-8")
        print(f"{mine}: write your answers here")
    to_file(folder / "sample.data", islice(lines(), 1_000))
    print(f"{folder / 'sample.data'}: 1,000 shipments")
    return 0


def _check(names: list[str], answers: ModuleType, data: Path) -> int:
    wrong = 0
    for name in names:
        if complaint := complaint_about(name, answers, data):
            wrong += 1
            text = "" if complaint == NOT_WRITTEN else f"wrong. {complaint[0].upper()}{complaint[1:]}"
            print(f"{name}: {(text or complaint).removesuffix('.')}{'' if text.endswith('?') else '.'}")
        else:
            print(f"{name}: right. {EXERCISES[name].lesson}".rstrip())
    return 1 if wrong else 0


def _answers(names: list[str], data: Path) -> int:
    for name in names:
        for told, elements in answers_of(name, solutions, data).items():
            print(f"{name}{told and ', '}{told}:")
            for element in elements[:30]:
                print(f"  {element}")
            if len(elements) > 30:
                print(f"  and {len(elements) - 30} more")
    return 0


def _loaded(path: Path) -> ModuleType:
    """Runs the file with the reader's answers as a module.

    It is not imported: the importer takes its last compilation for the file of now, if both are of the same second.
    """
    module = ModuleType("playground_answers")
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), path, "exec"), vars(module))  # noqa: S102  # the reader's own code
    return module


if __name__ == "__main__":
    sys.exit(main())
