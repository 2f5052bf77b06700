"""A project as `broadway new` makes it, and what its owner runs in it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from typer.testing import CliRunner

from broadway_py.cli import app
from tests.support.daemon import ROOT

__all__ = ["NewProject"]


class NewProject:
    """A project that was made in *folder*."""

    def __init__(self, folder: Path, *options: str, name: str = "shop") -> None:
        self.path = folder / name
        self.has_windows = "--windows" in options
        made = CliRunner().invoke(app, ["new", name, "--directory", str(self.path), *options])
        assert (made.exit_code, made.stderr) == (0, "")

    @property
    def settings(self) -> Path:
        return self.path / "settings.yaml"

    def broadway(self, *arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return self.run("broadway_py", *arguments, environ=environ)

    def run(
        self, module: str, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a module of Python in the project, with our package as if it was installed."""
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    def stored(self) -> list[tuple[str, int]]:
        """Customer and amount of each row that its pipeline has stored."""
        table = "revenue" if self.has_windows else "orders"
        file = self.path / "var" / f"{table}.db"
        if not file.exists():
            return []
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchall():
                return []
            return database.execute(f"SELECT customer, amount FROM {table} ORDER BY id").fetchall()  # noqa: S608  # ours

    @property
    def expected(self) -> list[tuple[str, int]]:
        """What `stored` is after the orders of the project's own file."""
        return [("ann", 15), ("bob", 25)] if self.has_windows else [("ann", 10), ("bob", 25), ("ann", 5)]
