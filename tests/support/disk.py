"""A small disk that can be filled, for what a program does when nothing more can be written."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Disk", "mounted"]


class Disk:
    """A small disk that can be filled and made read-only."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def fill(self) -> None:
        """Leave no room at all."""
        with (self.place / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"\0" * 4096)

    def clear(self) -> None:
        """Make room again."""
        (self.place / "filler").unlink()

    def give_back(self, size: int) -> None:
        """Make so many bytes of room."""
        filler = self.place / "filler"
        os.truncate(filler, filler.stat().st_size - size)

    def set_writable(self, *, writable: bool) -> None:
        """Mount it again, to be read only or not."""
        mode = "rw" if writable else "ro"
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.place)], check=True)


@contextmanager
def mounted(place: Path, size: str) -> Iterator[Disk | None]:
    """A disk of *size* in memory, at the new folder *place*; None where this user may not mount: only root may."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        may_mount = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        may_mount = False
    if not may_mount:
        yield None
        return
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
