"""Keeps payloads and credentials out of the client library's log lines."""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["hush"]

#: At DEBUG these log whole requests and answers, with bodies, receipt handles and signatures.
_LOGGERS: Final = ("aiobotocore", "botocore")


def hush() -> None:
    """Makes the client library log nothing below INFO, whatever level the other loggers have."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if logger.level < logging.INFO:
            logger.setLevel(logging.INFO)
