"""``broadway check --connect`` as a process of its own, for tests that plant a trouble."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.support.daemon import ROOT

__all__ = ["Said", "connect_check", "settings_file"]


class Said(NamedTuple):
    """What the command has printed, without the folder of the test and the places of the settings in the file."""

    code: int
    #: The lines of standard output: what is right.
    right: list[str]
    #: Those of standard error: what is not.
    wrong: list[str]


def settings_file(folder: Path, producer: Any, **more: Any) -> Path:
    """A settings file with one pipeline, ``orders``, that reads *producer*. *more*: further options of it."""
    path = folder / "a.yaml"
    options = {"class": "tests.daemon.pipelines:Plain", "producer": producer, **more}
    path.write_text(yaml.safe_dump({"pipelines": {"orders": options}}, sort_keys=False, width=10_000))
    return path


async def connect_check(file: Path, *options: str, environ: dict[str, str | None] | None = None) -> Said:
    """Runs the command for *file*. *environ* changes variables; None removes one."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "SSL_CERT_FILE": os.devnull, **(environ or {})}
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "broadway_py", "check", "--connect", *options, file.name],
        cwd=file.parent,
        capture_output=True,
        text=True,
        env={name: value for name, value in variables.items() if value is not None},
        timeout=120,
        check=False,
    )
    return Said(ended.returncode, ended.stdout.splitlines(), ended.stderr.splitlines())
