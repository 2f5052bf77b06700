"""Shares the ranges of files among worker processes: each takes the next one when it has read the one before."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

from broadway_py.flow.stages.file_lines import FileRange

__all__ = ["FileTurns"]

_NUMBER_BYTES: Final = 8


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

    def taken(self, ranges: Sequence[FileRange]) -> Iterator[FileRange]:
        """Yields the ranges that it is this reader's turn to read. It may wait for another reader, for a moment."""
        while True:
            number = int.from_bytes(os.read(self.descriptors[0], _NUMBER_BYTES))
            self._put(number + 1)
            if number >= len(ranges):
                return
            yield ranges[number]

    def close(self) -> None:
        """Closes the pipe in this process."""
        for each in self.descriptors:
            os.close(each)

    def _put(self, number: int) -> None:
        os.write(self.descriptors[1], number.to_bytes(_NUMBER_BYTES))
