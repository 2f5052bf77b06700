"""Logs the defaults that depend on the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadway_py.log import logger
from broadway_py.machine import usable_processors
from broadway_py.pipeline import Pipeline

__all__ = ["tell_of_defaults"]

log = logger("broadway_py.daemon")


def tell_of_defaults(pipelines: Sequence[Pipeline[Any]]) -> None:
    """Logs how many messages are handled at the same time, and why, where the settings leave it to the machine."""
    for pipeline in pipelines:
        if "concurrency" not in pipeline.processors.model_fields_set:
            log.info(
                "the default concurrency of the processors depends on the machine",
                pipeline=pipeline.name,
                concurrency=usable_processors().told(2),
            )
