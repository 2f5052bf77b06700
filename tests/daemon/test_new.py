"""`broadway new`: the project that it makes, as its owner checks and tests it; and what the command refuses."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner, Result

from broadway_py.cli import app
from broadway_py.cli.new_project.project import project_files, write_project
from broadway_py.errors import OptionsError
from broadway_py.written import PlainYaml
from tests.support.daemon import ROOT
from tests.support.kit_plugin import LOAD_PLUGIN
from tests.support.new_project import NewProject

KINDS = ("queue", "rabbitmq", "sqs")
NO_PACKAGE = "it is not the name of a Python package, which has letters, digits and _ alone, and begins with a letter"


def new(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["new", *map(str, arguments)])


@pytest.mark.parametrize("windows", [(), ("--windows",)], ids=["batches", "windows"])
@pytest.mark.parametrize("kind", KINDS)
def test_its_tests_pass_and_its_settings_are_right(kind: str, windows: tuple[str, ...], tmp_path: Path) -> None:
    project = NewProject(tmp_path, "--source", kind, *windows)

    ran = project.run("pytest", "-q", *LOAD_PLUGIN, "-p", "no:cacheprovider", "-p", "no:xdist")
    assert ran.returncode == 0, ran.stdout
    assert re.search(r"^[79] passed in ", ran.stdout, re.MULTILINE)

    checked = project.broadway("check", "settings.yaml")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "ok: 1 pipeline: orders\n", "")

    settings = yaml.load(project.settings.read_text(), PlainYaml)  # noqa: S506  # it is a SafeLoader
    schema = json.loads((project.path / "broadway.schema.json").read_text())
    assert list(Draft202012Validator(schema).iter_errors(settings)) == []
    assert project.settings.read_text().startswith("# yaml-language-server: $schema=broadway.schema.json\n")


@pytest.mark.parametrize("options", [("--source", "rabbitmq"), ("--source", "sqs", "--windows")])
def test_its_types_are_right(options: tuple[str, ...], tmp_path: Path) -> None:
    project = NewProject(tmp_path, *options)
    ran = project.run("mypy", "--strict", "--cache-dir", str(ROOT / ".cache" / "mypy_of_new_projects"))
    assert (ran.returncode, ran.stdout) == (0, "Success: no issues found in 4 source files\n")


@pytest.mark.parametrize("kind", KINDS)
def test_its_parts_are_named_after_it_and_nothing_is_left_to_fill_in(kind: str, tmp_path: Path) -> None:
    project = NewProject(tmp_path, "--source", kind, name="corner_shop")
    files = {str(file.relative_to(project.path)) for file in project.path.rglob("*") if file.is_file()}

    common = {
        ".gitignore",
        "Makefile",
        "README.md",
        "broadway.schema.json",
        "corner_shop/__init__.py",
        "corner_shop/pipeline.py",
        "orders.jsonl",
        "pyproject.toml",
        "settings.yaml",
        "tests/test_pipeline.py",
        "tests/test_settings.py",
        "var/.gitkeep",
    }
    of_broker = {"queue": set[str](), "rabbitmq": {"docker-compose.yml"}}
    of_broker["sqs"] = {"docker-compose.yml", "localstack/queues.sh"}
    assert files == common | of_broker[kind]
    for file in files:
        assert "{{" not in (project.path / file).read_text(), file
    assert (
        f"broadway-py[daemon{'' if kind == 'queue' else f',{kind}'}]" in (project.path / "pyproject.toml").read_text()
    )
    if kind != "queue":
        assert yaml.safe_load((project.path / "docker-compose.yml").read_text())["services"].keys() == {
            {"rabbitmq": "rabbitmq", "sqs": "localstack"}[kind]
        }
    if kind == "sqs":
        assert os.access(project.path / "localstack" / "queues.sh", os.X_OK)


def test_the_readme_is_one_page(tmp_path: Path) -> None:
    for kind in KINDS:
        for has_windows in (False, True):
            readme = project_files("shop", kind, has_windows=has_windows, schema={})["README.md"]
            assert len(readme.splitlines()) <= 62
            assert max(map(len, readme.splitlines())) <= 132


def test_it_says_what_to_do_next_in_three_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new("shop", "--source", "rabbitmq").stdout.splitlines() == [
        "shop is made. Its README says how to go on. In short:",
        "  cd shop && pip install --editable '.[dev]' && python -m pytest",
        "  docker compose up --detach --wait; broadway run settings.yaml",
        "  broadway send settings.yaml orders.jsonl    # in a second terminal",
    ]
    assert (tmp_path / "shop" / "settings.yaml").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my-shop", f"{NO_PACKAGE}; take another name, such as my_shop"),
        ("2 Shops!", f"{NO_PACKAGE}; take another name, such as project_2_shops"),
        ("Größe", f"{NO_PACKAGE}; take another name, such as gr_e"),
        ("../shop", f"{NO_PACKAGE}; take another name, such as shop"),
        ("-", f"{NO_PACKAGE}; take another name, such as orders"),
        ("class", "it is a word of the language Python; take another name, such as my_class"),
        ("match", "it is a word of the language Python; take another name, such as my_match"),
        (
            "queue",
            "it is the name of a module of Python itself, which it would hide; take another name, such as my_queue",
        ),
        ("tests", "it is the name of another package of the project; take another name, such as my_tests"),
        ("broadway_py", "it is the name of another package of the project; take another name, such as my_broadway_py"),
    ],
)
def test_a_name_that_no_package_can_have_is_refused(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = new("--directory", "there", "--", name)
    assert (shown.exit_code, shown.stdout, shown.stderr) == (2, "", f"broadway: new {name}: {sentence}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    shown = new("shop", "--directory", tmp_path)
    assert (shown.exit_code, shown.stderr) == (
        2,
        (
            f"broadway: {tmp_path}: the directory is not empty, and nothing is overwritten; "
            "choose another place with --directory\n"
        ),
    )
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"README.md": "mine"}


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop").write_text("mine")
    shown = new("shop", "--directory", tmp_path / "shop")
    assert (shown.exit_code, shown.stderr) == (
        2,
        f"broadway: {tmp_path}/shop: it is a file, and nothing is overwritten; choose another place with --directory\n",
    )
    assert (tmp_path / "shop").read_text() == "mine"


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shown = new("shop", "--directory", tmp_path / "file" / "shop")
    assert (shown.exit_code, shown.stderr) == (
        2,
        f"broadway: {tmp_path}/file: cannot be made: a part of this path is a file\n",
    )


@pytest.mark.parametrize("place", ["empty", "new", "deep/new"])
def test_it_is_made_in_an_empty_directory_or_a_new_one(place: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert new("shop", "--directory", tmp_path / place).exit_code == 0
    assert (tmp_path / place / "shop" / "pipeline.py").exists()
    assert not list(tmp_path.rglob(".new-*"))


@pytest.mark.parametrize("is_there", [False, True])
def test_nothing_is_left_when_the_disk_is_full(is_there: bool, tmp_path: Path) -> None:
    # No file of this process may be larger than 1 kB, so some of the project can be written and the rest cannot.
    place = tmp_path / "shop"
    if is_there:
        place.mkdir()
    ran = subprocess.run(
        ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", sys.executable, "-m", "broadway_py", "new", "shop"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"broadway: shop: cannot be written: {os.strerror(errno.EFBIG)}\n"
    assert list(tmp_path.rglob("*")) == ([place] if is_there else [])


@pytest.mark.parametrize("is_there", [False, True])
def test_nothing_is_left_when_it_is_interrupted_while_files_are_moved(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "shop"
    if is_there:
        place.mkdir()
    real, count = Path.rename, 0

    def interrupted(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == (3 if is_there else 1):
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_project(place, project_files("shop", "sqs", has_windows=False, schema={}))
    assert list(tmp_path.rglob("*")) == ([place] if is_there else [])


def test_a_directory_that_another_command_fills_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "shop"
    real = Path.rename

    def too_late(self: Path, target: Path) -> Path:
        place.mkdir()
        (place / "README.md").write_text("theirs")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", too_late)
    with pytest.raises(OptionsError, match="cannot be written: Directory not empty"):
        write_project(place, {"README.md": "ours"})
    assert {str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")} == {"shop", "shop/README.md"}
    assert (place / "README.md").read_text() == "theirs"
