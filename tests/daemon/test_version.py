"""``broadway --version``: what is installed of the extras, read without loading any of it."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broadway_py import installed
from broadway_py.cli import app
from broadway_py.installed import EXTRAS, Extra, package_version

ROOT = Path(__file__).parents[2]


def shown() -> list[str]:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


def without(monkeypatch: pytest.MonkeyPatch, *missing: str, versions: Mapping[str, str]) -> None:
    """As on a machine that has these versions of libraries, and that lacks some."""

    def version_there(library: str) -> str:
        if library in missing:
            raise PackageNotFoundError(library)
        return versions.get(library, "1.0")

    monkeypatch.setattr(installed, "version", version_there)


def test_the_first_line_tells_version_python_and_platform() -> None:
    assert shown()[0] == (
        f"broadway {version('broadway-py')}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.release()} {platform.machine()}"
    )


def test_each_extra_has_a_line_with_the_versions_of_its_libraries() -> None:
    lines = dict(line.split(maxsplit=1) for line in shown()[1:])

    assert list(lines) == list(EXTRAS)
    assert lines["sqs"] == f"aiobotocore {version('aiobotocore')}"
    assert lines["rabbitmq"].startswith(f"aio-pika {version('aio-pika')}, aiormq {version('aiormq')}, ")


def test_an_extra_that_is_not_installed_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "aiobotocore", "pamqp", "tqdm", versions={"cloudpickle": "3.1.3", "aio-pika": "10.2.1"})

    assert shown()[1:] == [
        "  daemon    aiohttp 1.0, prometheus-client 1.0, rich 1.0, typer 1.0",
        "  flow      cloudpickle 3.1.3; tqdm not installed: pip install 'broadway-py[flow]'",
        "  otel      opentelemetry-api 1.0",
        (
            "  rabbitmq  aio-pika 10.2.1, aiormq 1.0, yarl 1.0, aiohappyeyeballs 1.0; pamqp not installed: "
            "pip install 'broadway-py[rabbitmq]'"
        ),
        "  ray       cloudpickle 3.1.3, ray 1.0",
        "  reload    watchfiles 1.0",
        "  speed     uvloop 1.0",
        "  sqs       not installed: pip install 'broadway-py[sqs]'",
    ]


def test_a_platform_without_uvloop_is_not_told_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    assert [extra.name for extra in installed.extras()] == [
        "daemon",
        "flow",
        "otel",
        "rabbitmq",
        "ray",
        "reload",
        "sqs",
    ]


def test_a_checkout_that_was_never_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "broadway-py", versions={})

    assert package_version() == "unknown"


def test_several_missing_libraries_are_named_together() -> None:
    assert str(Extra("x", {"a": "1", "b": None, "c": None})) == (
        "a 1; b, c not installed: pip install 'broadway-py[x]'"
    )


def test_the_libraries_of_each_extra_are_those_of_the_package() -> None:
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {
        extra: {re.split(r"[^A-Za-z0-9-]", one)[0] for one in requirements}
        for extra, requirements in written.items()
        if extra not in ("all", "dev")
    }

    assert {extra: set(libraries) for extra, libraries in EXTRAS.items()} == names


def test_all_leaves_out_what_is_large_and_for_few_and_what_is_for_development() -> None:
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert written["all"] == [f"broadway-py[{','.join(sorted(EXTRAS.keys() - {'ray', 'reload'}))}]"]


def test_none_of_the_libraries_is_loaded_for_it() -> None:
    program = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from broadway_py.cli import app\n"
        "assert CliRunner().invoke(app, ['--version']).exit_code == 0\n"
        "slow = 'aio_pika aiormq aiobotocore botocore aiohttp prometheus_client opentelemetry ray tqdm uvloop'\n"
        "print([name for name in slow.split() if name in sys.modules])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )

    assert ended.stdout == "[]\n"
