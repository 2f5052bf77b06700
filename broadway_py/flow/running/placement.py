"""Which process each source and stage of a plan is in."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from broadway_py.flow.description.layers import FromFiles
from broadway_py.flow.plan import Plan, PlannedSource

__all__ = ["PARENT", "Placement", "files_of_workers", "workers_of"]

#: The place of the process that runs the flow. Worker processes have the places 0, 1, and so on.
PARENT: Final = -1
#: Here a name stands for something else in each process, such as ``/dev/stdin``.
_OF_THIS_PROCESS: Final = ("/dev", "/proc")


class Placement(NamedTuple):
    """Which process each source and stage of a plan is in. Results always leave in the parent.

    Args:
        workers: how many worker processes there are; 0: all is in the parent.
        here: the place of this process.
        files: the numbers of the sources of files that the workers read.
    """

    workers: int = 0
    here: int = PARENT
    files: Collection[int] = ()

    def of_stage(self, index: int) -> int:
        """Returns the place of a stage, by its index in its layer: the stages are dealt out in turn."""
        return index % self.workers if self.workers else PARENT

    def of_source(self, source: PlannedSource) -> Iterator[int]:
        """Yields the places where a source is read: files in the workers, all else in the parent."""
        if source.number in self.files:
            way = source.way
            # A worker keeps the lines that it reads, unless their keys say where they go.
            yield from range(min(self.workers, way.stages) if way.sharing == "spread" else self.workers)
        else:
            yield PARENT

    def is_connected(self, source: PlannedSource, place: int, consumer: int) -> bool:
        """Returns True if lists of *source* go from the reader at *place* to the stages at *consumer*."""
        return place in (PARENT, consumer) or source.way.sharing != "spread"


def files_of_workers(plan: Plan) -> frozenset[int]:
    """Returns the numbers of the sources of files that worker processes can read, range by range.

    Only one reader can number the lists in the order of the file. What is not a regular file has no ranges.
    """
    return frozenset(
        source.number
        for source in plan.sources
        if isinstance(source.source, FromFiles)
        and source.way.to is not None
        and not source.way.is_ordered
        and all(_is_the_same_everywhere(path) for path in source.source.paths)
    )


def _is_the_same_everywhere(name: str) -> bool:
    from pathlib import Path  # noqa: PLC0415  # the parent asks; worker processes start faster without it

    path = Path(name)
    # One that is gone fails in the parent, as one that is read there does.
    return path.is_file() and not any(path.absolute().is_relative_to(each) for each in _OF_THIS_PROCESS)


def workers_of(plan: Plan, most: int) -> int:
    """Returns how many worker processes have something to do, at most *most*."""
    return min(most, max((layer.stages for layer in plan.layers), default=0))
