"""The event bus: what happens inside a pipeline, for whoever attaches. Nobody attached costs nothing.

Events and their contents are listed in :mod:`broadway_py.events`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from broadway_py.errors import did_you_mean
from broadway_py.events import EVENTS
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger

__all__ = ["Handler", "active", "attach", "detach", "execute", "listening"]

#: ``handler(event, measurements, metadata)``: called in the stage's own task, so it must be quick and must not wait.
Handler = Callable[[str, Mapping[str, Any], Mapping[str, Any]], object]

log = logger("broadway_py.telemetry")

_handlers: dict[str, dict[str, Handler]] = {}


def attach(name: str, events: str | Iterable[str], handler: Handler) -> None:
    """Call *handler* at each of *events*, under a *name* for :func:`detach`.

    A handler that raises is detached and logged; the pipeline does not notice.

    Raises:
        ValueError: an event does not exist, or *name* is taken.
    """
    wanted = [events] if isinstance(events, str) else list(events)
    for event in wanted:
        if event not in EVENTS:
            raise ValueError(f"telemetry.attach: unknown event {event!r}{did_you_mean(event, EVENTS)}")
        if name in _handlers.get(event, {}):
            raise ValueError(f"telemetry.attach: a handler named {name!r} is attached to {event!r} already")
    for event in wanted:
        # A new dict each time: execute() may be walking over the old one.
        _handlers[event] = {**_handlers.get(event, {}), name: handler}


def detach(name: str) -> None:
    """Take the handler called *name* off all its events; unknown names are fine."""
    for event in list(_handlers):
        rest = {other: handler for other, handler in _handlers[event].items() if other != name}
        if rest:
            _handlers[event] = rest
        else:
            del _handlers[event]


def listening(event: str) -> bool:
    """True when somebody is attached to *event*: ask before measuring anything just for it."""
    return event in _handlers


def active() -> bool:
    """True when somebody is attached to anything."""
    return bool(_handlers)


def execute(event: str, measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Tell whoever is attached to *event*."""
    for name, handler in _handlers.get(event, {}).items():
        try:
            handler(event, measurements, metadata)
        except foreign_errors():
            detach(name)
            log.exception("a telemetry handler raised and was detached", handler=name, telemetry_event=event)
