"""The event bus: tells attached handlers what happens inside a pipeline. Without a handler it costs almost nothing.

:mod:`broadway_py.events` lists the events and their contents.
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

#: ``handler(event, measurements, metadata)``. It is called in the stage's own task, so it must be fast and not wait.
Handler = Callable[[str, Mapping[str, Any], Mapping[str, Any]], object]

log = logger("broadway_py.telemetry")

_handlers: dict[str, dict[str, Handler]] = {}


def attach(name: str, events: str | Iterable[str], handler: Handler) -> None:
    """Attaches *handler* to each of *events*, under a *name* for :func:`detach`.

    A handler that raises is detached, and the error is logged. The pipeline is not affected.

    Raises:
        ValueError: an event does not exist, or *name* is already used.
    """
    wanted = [events] if isinstance(events, str) else list(events)
    for event in wanted:
        if event not in EVENTS:
            raise ValueError(f"telemetry.attach: unknown event {event!r}{did_you_mean(event, EVENTS)}")
        if name in _handlers.get(event, {}):
            raise ValueError(f"telemetry.attach: a handler named {name!r} is attached to {event!r} already")
    for event in wanted:
        # A new dict each time, because execute() may be iterating over the old one.
        _handlers[event] = {**_handlers.get(event, {}), name: handler}


def detach(name: str) -> None:
    """Detaches the handler called *name* from all its events. Unknown names are ignored."""
    for event in list(_handlers):
        rest = {other: handler for other, handler in _handlers[event].items() if other != name}
        if rest:
            _handlers[event] = rest
        else:
            del _handlers[event]


def listening(event: str) -> bool:
    """Returns True if a handler is attached to *event*. Ask before you measure something only for it."""
    return event in _handlers


def active() -> bool:
    """Returns True if any handler is attached."""
    return bool(_handlers)


def execute(event: str, measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Calls every handler that is attached to *event*."""
    for name, handler in _handlers.get(event, {}).items():
        try:
            handler(event, measurements, metadata)
        except foreign_errors():
            detach(name)
            log.exception("a telemetry handler raised and was detached", handler=name, telemetry_event=event)


class Span:
    """Sends ``EVENT.start`` when it is made, then ``EVENT.stop`` or ``EVENT.exception``.

    Args:
        event: the name of the event without its last word.
        metadata: the metadata of the event, besides *pipeline*, *context* and *index*.
        clock: the clock of the pipeline.
        pipeline: the name of the pipeline.
        context: the context of the pipeline.
        index: the index of the stage within its layer.
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
        """Sends ``stop``: the work ended."""
        self._end("stop", results)

    def exception(self, error: BaseException) -> None:
        """Sends ``exception``: the work raised *error*."""
        self._end("exception", {"exception": error})

    def _end(self, kind: str, more: dict[str, Any]) -> None:
        now = self._clock.monotonic()
        measured = {"duration": now - self._started, "monotonic_time": now}
        execute(f"{self._event}.{kind}", measured, {**self._metadata, **more})


def message_listeners() -> bool:
    """Returns True if a handler is attached to an event about single messages."""
    return active() and any(listening(f"broadway.processor.message.{kind}") for kind in ("start", "stop", "exception"))


def end_message_span(span: Span, message: Message[Any], failure: Failed | None) -> None:
    """Ends *span* once its message was handled: with ``exception`` if *failure* holds one, else with ``stop``."""
    if failure is not None and failure.exception is not None:
        span.exception(failure.exception)
    else:
        span.stop(message=message)
