"""Copies of the working tree, to break."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["copy_tree"]


def copy_tree(root: Path, target: Path) -> None:
    """Copy *root* as it is now to *target*: tracked and new files, without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in sorted(filter(None, listed.split("\0"))):
        source = root / name
        if source.is_file():  # one that was deleted and not yet committed is listed, too
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
