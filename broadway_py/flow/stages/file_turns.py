"""Shares the ranges of files among worker processes: each takes the next one when it has read the one before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Protocol

from broadway_py.flow.stages.file_lines import FileRange

__all__ = ["FileTurns", "PipedRanges", "RangesOf"]

_NUMBER_BYTES: Final = 8


class RangesOf(Protocol):
    """The ranges of files that are one reader's to read."""

    async def next(self) -> FileRange | None:
        """Returns the next range, when it is this reader's turn; None: there are no more."""


class FileTurns:
    """The number of the next range, in a pipe that all readers have. Whoever takes it out puts the next one in.

    Args:
        descriptors: the two ends of the pipe.
    """

    def __init__(self, descriptors: tuple[int, int]) -> None:
        self.descriptors = descriptors

    @classmethod
    def new(cls) -> FileTurns:
        """Returns turns that begin with the first range."""
        turns = cls(os.pipe())
        turns._put(0)
        return turns

    def take(self) -> int:
        """Returns the number of the next range. It may wait for another reader, for a moment."""
        number = int.from_bytes(os.read(self.descriptors[0], _NUMBER_BYTES))
        self._put(number + 1)
        return number

    def close(self) -> None:
        """Closes the pipe in this process."""
        for each in self.descriptors:
            os.close(each)

    def _put(self, number: int) -> None:
        os.write(self.descriptors[1], number.to_bytes(_NUMBER_BYTES))


class PipedRanges:
    """The ranges of a reader that shares *turns* with others."""

    def __init__(self, turns: FileTurns, ranges: Sequence[FileRange]) -> None:
        self._turns = turns
        self._ranges = ranges

    async def next(self) -> FileRange | None:
        """Returns the next range; None: there are no more."""
        number = self._turns.take()
        return self._ranges[number] if number < len(self._ranges) else None
