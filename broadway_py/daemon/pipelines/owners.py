"""Says which worker owns which partitions of the sources of each pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from broadway_py.pipeline import Pipeline

__all__ = ["Owners", "owners_of", "partitions_text"]

#: By the name of a pipeline whose sources are parted: the partitions of each worker.
Owners = Mapping[str, Mapping[int, Sequence[int]]]


def owners_of(pipelines: Iterable[Pipeline[Any]], workers: int) -> Owners:
    """Returns the partitions that each of *workers* owns. A pipeline whose sources are not parted is left out.

    The shares are fixed, so this holds for workers that do not run, too.
    """
    shares = {pipeline.name: pipeline._sources.shares(workers) for pipeline in pipelines}
    return {name: dict(enumerate(of_workers)) for name, of_workers in shares.items() if of_workers}


def partitions_text(partitions: Sequence[int]) -> str:
    """Returns *partitions* in words, such as ``partition 2`` or ``partitions 0, 4``."""
    return f"partition{'s' if len(partitions) > 1 else ''} {', '.join(map(str, partitions))}"
