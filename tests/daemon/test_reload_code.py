from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from broadway_py.daemon.reload.code_files import changed_code, loaded_code


def test_files_of_the_user_are_noted_and_those_of_libraries_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "reload_code_of_the_user.py"
    mine.write_text("x = 1\n")
    installed = tmp_path / "site-packages" / "reload_code_installed.py"
    installed.parent.mkdir()
    installed.write_text("x = 1\n")
    for folder in (mine.parent, installed.parent):
        monkeypatch.syspath_prepend(folder)
    for module in (mine.stem, installed.stem):
        importlib.import_module(module)
        monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, module, importlib.import_module(module))
    noted = loaded_code()
    assert str(mine) in noted
    assert str(installed) not in noted
    assert not {file for file in noted if file in (os.__file__, pytest.__file__)}
    mine_alone = {str(mine): noted[str(mine)]}
    assert changed_code(mine_alone) == []
    mine.write_text("x = 1  # longer\n")
    assert changed_code(mine_alone) == [str(mine)]
    mine.unlink()
    assert changed_code(mine_alone) == [str(mine)]


def test_something_else_may_be_in_the_place_of_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        def __init__(self, file: object) -> None:
            self.__file__ = file

    for number, odd in enumerate((Odd("a\0b"), Odd(3), 4)):
        monkeypatch.setitem(sys.modules, f"reload_code_odd_{number}", odd)
    assert not {"a\0b", 3} & {*loaded_code()}
