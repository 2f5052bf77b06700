"""Keeps payloads and credentials out of what the client library logs."""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["hush"]

#: At DEBUG they log whole requests and answers, with bodies, receipt handles and signatures.
_LOGGERS: Final = ("aiobotocore", "botocore")


def hush() -> None:
    """Have the client library log nothing below INFO, whatever the level of the others is."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if logger.level < logging.INFO:
            logger.setLevel(logging.INFO)
