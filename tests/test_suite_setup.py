"""The ground that tests stand on: CI skips nothing silently, and set-up says what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SUITE = """
import pytest

@pytest.fixture
def broker(): pytest.skip("no RabbitMQ")

@pytest.mark.integration
def test_needs_a_broker(broker): pass

def test_needs_none(): pytest.skip("not on this machine")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyprojecttoml(
        '[tool.pytest.ini_options]\nmarkers = ["integration"]\nasyncio_default_fixture_loop_scope = "function"\n'
    )
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makepyfile(SUITE)
    return pytester


def test_a_skipped_integration_test_fails_in_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    ran = suite.runpytest_inprocess()

    ran.assert_outcomes(errors=1, skipped=1)
    ran.stdout.fnmatch_lines("*an integration test may not be skipped under CI=true: Skipped: no RabbitMQ")


def test_a_skipped_integration_test_is_only_skipped_elsewhere(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)

    suite.runpytest_inprocess().assert_outcomes(skipped=2)


def test_set_up_without_a_fitting_python_says_what_to_install(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["/bin/sh", ROOT / "tests" / "support" / "make_venv.sh", tmp_path / "venv", "", "all,dev"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ran.returncode == 1
    assert ran.stderr == (
        "expected Python 3.11 or newer with its venv module, "
        "found none as python3, python3.14, python3.13, python3.12, python3.11 or python.\n"
        "Install one (Debian, Ubuntu: apt-get install python3 python3-venv), "
        "or name it: make PYTHON=/path/to/python3\n"
    )


def python(folder: Path, name: str, version: str, *, works: bool = True) -> Path:
    """A stand-in for a Python of *version*: answers what the set-up asks one, or fails as pyenv's does."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    major, minor = version.split(".")
    pretends = f'import sys; sys.version_info = ({major}, {minor}); sys.executable = "{program}"; exec(sys.argv[1])'
    works_so = f"exec {sys.executable} -c '{pretends}' \"$2\"\n"
    program.write_text("#!/bin/sh\n" + (works_so if works else "echo 'pyenv: command not found' >&2; exit 127\n"))
    program.chmod(0o755)
    return program


def found(tmp_path: Path, script: str, *arguments: str) -> str:
    """What a script of the set-up prints, on a machine whose programs are those in ``bin`` and ``.pyenv``."""
    ran = subprocess.run(
        ["/bin/sh", ROOT / "tests" / "support" / script, *arguments],
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.stderr == ""
    return ran.stdout.strip()


def test_a_python_is_found_in_the_path_before_pyenv(tmp_path: Path) -> None:
    here = python(tmp_path / "bin", "python3.13", "3.13")
    python(tmp_path / ".pyenv" / "versions" / "3.13.0" / "bin", "python3.13", "3.13")
    assert found(tmp_path, "find_python.sh", "python3.13") == str(here)


def test_a_stand_in_of_pyenv_that_does_not_work_leads_to_the_version_that_pyenv_has(tmp_path: Path) -> None:
    python(tmp_path / "bin", "python3.13", "3.13", works=False)
    there = python(tmp_path / ".pyenv" / "versions" / "3.13.0" / "bin", "python3.13", "3.13")
    assert found(tmp_path, "find_python.sh", "python3.13") == str(there)


def test_the_first_python_that_is_new_enough_is_taken(tmp_path: Path) -> None:
    python(tmp_path / "bin", "python3", "3.9")
    python(tmp_path / "bin", "python3.14", "3.14", works=False)
    newer = python(tmp_path / "bin", "python3.12", "3.12")
    assert found(tmp_path, "find_python.sh", "python3", "python3.14", "python3.12", "python3.11") == str(newer)


def test_a_python_that_is_too_old_is_none(tmp_path: Path) -> None:
    old = python(tmp_path / "bin", "python3.10", "3.10")
    assert found(tmp_path, "find_python.sh", str(old)) == ""
    assert found(tmp_path, "python_version.sh", str(old)) == ""


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize(
    ("setting", "environment"),
    [([], ".venv"), (["PYTHON=python3.12"], ".cache/venv-3.12"), (["PYTHON=python3.14"], ".cache/venv-3.14")],
)
def test_each_python_has_an_environment_of_its_own(tmp_path: Path, setting: list[str], environment: str) -> None:
    for version in ("3.12", "3.14"):
        python(tmp_path / "bin", f"python{version}", version)
    planned = subprocess.run(
        ["make", "--dry-run", "test", *setting],
        cwd=ROOT,
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"{environment}/bin/python -m pytest" in planned.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_running_installs_less_than_testing_and_both_get_along(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "support", tmp_path / "tests" / "support", ignore=shutil.ignore_patterns("*.py*"))
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)

    def planned(target: str) -> list[str]:
        ran = subprocess.run(
            ["make", "--dry-run", target],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return [line.split()[-1] for line in ran.stdout.splitlines() if "make_venv.sh" in line]

    assert planned("run") == ["daemon,speed"]
    assert planned("test") == ["all,dev"]
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".runs").touch()
    assert planned("run") == []
    assert planned("test") == ["all,dev"]
    (tmp_path / ".venv" / ".complete").touch()
    assert planned("run") == planned("test") == []
