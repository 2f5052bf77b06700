"""The event bus: what happens inside a pipeline, for whoever attaches. Nobody attached costs nothing.

Events and their contents are listed in :mod:`broadway_py.events`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from broadway_py.clock import Clock
from broadway_py.errors import did_you_mean
from broadway_py.events import EVENTS
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.message import Failed, Message

__all__ = [
    "Handler",
    "Span",
    "active",
    "attach",
    "detach",
    "end_message_span",
    "execute",
    "listening",
    "message_listeners",
]

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


class Span:
    """Tells ``EVENT.start`` when it is made, then ``EVENT.stop`` or ``EVENT.exception``.

    Args:
        event: without its last word.
        metadata: of the event, beside what follows.
        clock: of the pipeline.
        pipeline: its name.
        context: of the pipeline.
        index: of the stage within its layer.
    """

    __slots__ = ("_clock", "_event", "_metadata", "_started")

    def __init__(
        self, event: str, metadata: Mapping[str, Any], *, clock: Clock, pipeline: str, context: object, index: int
    ) -> None:
        self._clock = clock
        self._event = event
        self._started = clock.monotonic()
        self._metadata = {"pipeline": pipeline, "index": index, "context": context, **metadata}
        execute(f"{event}.start", {"system_time": clock.wall(), "monotonic_time": self._started}, self._metadata)

    def stop(self, **results: Any) -> None:
        """The work ended."""
        self._end("stop", results)

    def exception(self, error: BaseException) -> None:
        """The work raised."""
        self._end("exception", {"exception": error})

    def _end(self, kind: str, more: dict[str, Any]) -> None:
        now = self._clock.monotonic()
        measured = {"duration": now - self._started, "monotonic_time": now}
        execute(f"{self._event}.{kind}", measured, {**self._metadata, **more})


def message_listeners() -> bool:
    """True when somebody wants to hear of single messages."""
    return active() and any(listening(f"broadway.processor.message.{kind}") for kind in ("start", "stop", "exception"))


def end_message_span(span: Span, message: Message[Any], failure: Failed | None) -> None:
    """The message of *span* was handled, and failed if there is a *failure*."""
    if failure is not None and failure.exception is not None:
        span.exception(failure.exception)
    else:
        span.stop(message=message)
