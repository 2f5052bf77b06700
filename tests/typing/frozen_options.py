"""Options are frozen. mypy knows it by pydantic's plugin. Pyright has no plugins, and finds the ``ignore`` needless."""
# pyright: reportUnnecessaryTypeIgnoreComment=false

from __future__ import annotations

from broadway_py import Processors


def change() -> None:
    Processors(concurrency=3).concurrency = 4  # type: ignore[misc]  # options are frozen
