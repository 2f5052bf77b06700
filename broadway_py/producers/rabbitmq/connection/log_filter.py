"""Keeps payloads out of what the client library logs."""

from __future__ import annotations

import logging
from typing import Final

from aiormq.abc import AbstractConnection, ChannelFrame, DeliveredMessage
from aiormq.exceptions import AMQPError
from pamqp.exceptions import PAMQPException

__all__ = ["hush"]

#: Every logger of the two libraries that has been seen with a payload, or with what we say better.
_LOGGERS: Final = ("aiormq.channel", "aiormq.connection", "aio_pika.exchange", "aio_pika.message")


class _Discreet(logging.Filter):
    """Takes bodies, raw frames and users out of a record; drops what the producer's own error says again."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg == "error when creating transport: %r":
            return False  # open() raises it as a ProducerError, and the pipeline logs that once per try
        if isinstance(record.args, tuple):
            record.args = tuple(_shown(argument) for argument in record.args)
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, AMQPError | PAMQPException):
            # Its text and its trace may quote the frame that could not be read.
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
    """Have the client library's loggers show no payload, at any level. Doing it again changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_DISCREET)
