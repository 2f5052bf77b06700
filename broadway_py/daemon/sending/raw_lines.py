"""Reads lines from a file, or from a pipe as they come."""

from __future__ import annotations

import asyncio
import io
import os
import stat
from collections.abc import AsyncGenerator
from typing import BinaryIO, Final

__all__ = ["raw_lines"]

_BLOCK: Final = 64 * 1024


async def raw_lines(stream: BinaryIO, most: int) -> AsyncGenerator[list[bytes], None]:
    """Yields the lines of *stream* with their ends, in lists of at most *most*.

    From a pipe or a terminal it yields what is there, and waits for more in a way that can be cancelled. A plain read
    would hold up Ctrl-C until the next line.
    """
    rest = b""
    waiting: list[bytes] = []
    async for block in _blocks(stream):
        *lines, rest = (rest + block).split(b"\n")
        waiting += [line + b"\n" for line in lines]
        full = len(waiting) - len(waiting) % most if _is_file(stream) else len(waiting)
        for start in range(0, full, most):
            yield waiting[start : min(start + most, full)]
        waiting = waiting[full:]
    if rest:
        waiting.append(rest)
    for start in range(0, len(waiting), most):
        yield waiting[start : start + most]


async def _blocks(stream: BinaryIO) -> AsyncGenerator[bytes, None]:
    if _is_file(stream):
        while block := stream.read(_BLOCK):
            yield block
        return
    number = stream.fileno()
    while True:
        await _readable(number)
        block = os.read(number, _BLOCK)
        if not block:
            return
        yield block


def _is_file(stream: BinaryIO) -> bool:
    """Returns whether reading *stream* never waits for somebody else."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except io.UnsupportedOperation:
        return True  # it is in memory
    return not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(stream.fileno()))


async def _readable(number: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(number, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(number)
