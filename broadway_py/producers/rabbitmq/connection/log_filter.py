"""Keeps payloads out of the client library's log lines."""

from __future__ import annotations

import logging
from typing import Final

from aiormq.abc import AbstractConnection, ChannelFrame, DeliveredMessage
from aiormq.exceptions import AMQPError
from pamqp.exceptions import PAMQPException

__all__ = ["hush"]

#: All loggers of the two libraries that have shown a payload, or that repeat our own errors.
_LOGGERS: Final = ("aiormq.channel", "aiormq.connection", "aio_pika.exchange", "aio_pika.message")


class _Discreet(logging.Filter):
    """Removes bodies, raw frames and users from a record. Drops records that repeat the producer's own error."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg == "error when creating transport: %r":
            return False  # open() raises this as a ProducerError, and the pipeline logs it once per try
        if isinstance(record.args, tuple):
            record.args = tuple(_shown(argument) for argument in record.args)
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, AMQPError | PAMQPException):
            # Text and traceback may show the frame that could not be read.
            record.msg = f"{record.msg} ({type(error).__name__})"
            record.exc_info = None
        return True


def _shown(argument: object) -> object:
    match argument:
        case DeliveredMessage():
            return f"<message of {len(argument.body)} bytes>"
        case ChannelFrame():
            return f"<frames of {len(argument.payload)} bytes>"
        case bytes() | bytearray():
            return f"<{len(argument)} bytes>"
        case AMQPError() | PAMQPException():
            return type(argument).__name__
        case AbstractConnection():
            return f"<connection to {argument.url.host}:{argument.url.port}>"
    return argument


_DISCREET: Final = _Discreet()


def hush() -> None:
    """Makes the client library's loggers show no payload, at any level. Further calls change nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_DISCREET)
