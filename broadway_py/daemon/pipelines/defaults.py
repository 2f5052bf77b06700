"""What the log says of defaults that follow the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadway_py.log import logger
from broadway_py.machine import usable_processors
from broadway_py.pipeline import Pipeline

__all__ = ["tell_of_defaults"]

log = logger("broadway_py.daemon")


def tell_of_defaults(pipelines: Sequence[Pipeline[Any]]) -> None:
    """Say how many messages are handled side by side where the settings leave it to the machine, and why so many."""
    for pipeline in pipelines:
        if "concurrency" not in pipeline.processors.model_fields_set:
            log.info(
                "the concurrency of the processors follows the machine",
                pipeline=pipeline.name,
                concurrency=usable_processors().told(2),
            )
