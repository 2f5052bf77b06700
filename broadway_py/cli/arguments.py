"""Arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Assignments", "Files"]

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...", help="A settings file: YAML, TOML or JSON. A later file overrides an earlier one."
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override one setting. The option may be repeated. The value is read as YAML.",
    ),
]
