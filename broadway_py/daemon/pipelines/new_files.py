"""Warns before workers start if files of partitions are new beside those of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadway_py.aggregator import State
from broadway_py.daemon.pipelines.owners import owners_of
from broadway_py.log import logger
from broadway_py.pipeline import Pipeline
from broadway_py.state.partitions import new_beside_others

__all__ = ["tell_of_new_files"]

log = logger("broadway_py.daemon")


def tell_of_new_files(pipelines: Sequence[Pipeline[Any]], workers: int) -> None:
    """Logs a warning for each pipeline with such files. The workers cannot tell: they make their files side by side."""
    owners = owners_of(pipelines, workers)
    for pipeline in pipelines:
        state = pipeline.state
        if pipeline.name not in owners or not isinstance(state, State) or state.is_memory or not pipeline._keeps_state:
            continue
        owned = sorted(number for of_worker in owners[pipeline.name].values() for number in of_worker)
        doubt = new_beside_others(state.path, owned)
        if doubt is not None:
            log.warning(doubt, pipeline=pipeline.name)
