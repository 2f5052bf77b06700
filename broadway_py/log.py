"""The library's loggers: structlog on top of the standard library, so that any application can place the output."""

from __future__ import annotations

import logging
from typing import cast

import structlog

__all__ = ["logger"]


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger under the standard library's *name*.

    Level and handlers are the standard library's. ``structlog.stdlib.ProcessorFormatter`` on a handler renders the
    fields (``broadway run`` installs one); without it they are shown as a dict.
    """
    wrapped = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
    )
    return cast("structlog.stdlib.BoundLogger", wrapped)
