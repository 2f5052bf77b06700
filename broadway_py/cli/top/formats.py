"""Writes numbers as short texts, and texts so that they fit."""

from __future__ import annotations

import math

from rich.cells import cell_len, set_cell_size

__all__ = ["NONE", "bytes_of", "count", "cut", "cut_inside", "rate", "seconds", "share"]

#: What stands for a value that is not known.
NONE = "-"


def count(value: float | None) -> str:
    """Returns a number in at most six characters: ``1,234``, ``12.3k``, ``4.5M``."""
    if value is None:
        return NONE
    if abs(value) < 9_999.5:
        return f"{value:,.0f}"
    scaled = value
    for unit in "kMGT":
        scaled /= 1000
        if abs(scaled) < 999.95:
            return f"{scaled:.1f}{unit}"
    return f"{value:.0e}"


def rate(value: float | None) -> str:
    """Returns a number per second. Small ones have one decimal."""
    if value is None or value == 0 or value >= 9.95:
        return count(value)
    return f"{value:.1f}"


def seconds(value: float | None) -> str:
    """Returns a duration in at most six characters, in the unit that suits it."""
    if value is None:
        return NONE
    if value <= 0:
        return "0 s"
    for factor, unit, most in ((1e6, "us", 1e-3), (1e3, "ms", 1.0), (1, "s", 120.0), (1 / 60, "min", 7200.0)):
        if value < most:
            scaled = value * factor
            return f"{scaled:.1f} {unit}" if scaled < 9.95 and unit != "us" else f"{scaled:.0f} {unit}"
    return f"{count(value / 3600)} h" if value < math.inf else NONE


def share(value: float | None) -> str:
    """Returns a part of 1 in percent."""
    return NONE if value is None else f"{min(1.0, value) * 100:.0f}%"


def bytes_of(value: float) -> str:
    """Returns a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 9.95 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.0f} TiB"


def cut(text: str, width: int) -> str:
    """Returns *text* in at most *width* cells of the terminal. A mark at the end says that something is missing."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)) + "~" if width > 0 else ""


def cut_inside(text: str, width: int) -> str:
    """Returns the same, but keeps both ends, because names often differ only at their ends."""
    if cell_len(text) <= width or width < 3:
        return cut(text, width)
    tail = text[-(width - 1) // 2 :]
    while cell_len(tail) > (width - 1) // 2:
        tail = tail[1:]
    return f"{set_cell_size(text, width - 1 - cell_len(tail)).rstrip()}~{tail}"
