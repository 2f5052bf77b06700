"""The library's loggers: structlog on top of the standard library, so that any application can place the output."""

from __future__ import annotations

import json
import logging
import re
from typing import Any, Final, cast

import structlog

from broadway_py.foreign import shown

__all__ = ["logger"]


#: What a handler of the standard library shows by itself, or what is no news.
_NOT_SHOWN: Final = frozenset({"event", "exc_info", "level", "timestamp"})
_BARE: Final = re.compile(r"[^\s\"'=]+")


class _Line(dict[str, Any]):
    """The fields of a line; as text, what people read."""

    def __str__(self) -> str:
        fields = [
            f"{key}={_value(value)}" for key, value in self.items() if key not in _NOT_SHOWN and value is not None
        ]
        return " ".join([str(self.get("event", "")), *fields])


def _value(value: object) -> str:
    text = value if isinstance(value, str) else shown(value)
    if _BARE.fullmatch(text) or not isinstance(value, str):
        return text
    # Quoted, so that a line of ours stays one line.
    return json.dumps(text, ensure_ascii=False)


def _readable(_logger: Any, _name: str, wrapped: Any) -> tuple[Any, ...]:
    # What wrap_for_formatter has made: the arguments of the standard library's call.
    (fields,), rest = wrapped
    return (_Line(fields),), rest


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger under the standard library's *name*.

    Level and handlers are the standard library's. ``structlog.stdlib.ProcessorFormatter`` on a handler renders the
    fields (``broadway run`` installs one); without it they are shown behind the event, as ``name=value``.
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
            _readable,
        ],
    )
    return cast("structlog.stdlib.BoundLogger", wrapped)
