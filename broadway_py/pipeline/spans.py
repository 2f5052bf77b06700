"""Pairs of telemetry events around a piece of work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broadway_py import telemetry
from broadway_py.message import Failed, Message

if TYPE_CHECKING:
    from broadway_py.pipeline.stages.stage import Worker

__all__ = ["Span", "end_message_span", "message_listeners"]


class Span:
    """``EVENT.start`` when it is made, then ``EVENT.stop`` or ``EVENT.exception``."""

    __slots__ = ("_event", "_metadata", "_shared", "_started")

    def __init__(self, worker: Worker, event: str, metadata: dict[str, Any]) -> None:
        shared = self._shared = worker.shared
        self._event = event
        self._started = shared.clock.monotonic()
        self._metadata = {"pipeline": shared.name, "index": worker.index, "context": shared.context, **metadata}
        telemetry.execute(
            f"{event}.start", {"system_time": shared.clock.wall(), "monotonic_time": self._started}, self._metadata
        )

    def stop(self, **results: Any) -> None:
        """The work ended."""
        self._end("stop", results)

    def exception(self, error: BaseException) -> None:
        """The work raised."""
        self._end("exception", {"exception": error})

    def _end(self, kind: str, more: dict[str, Any]) -> None:
        now = self._shared.clock.monotonic()
        measured = {"duration": now - self._started, "monotonic_time": now}
        telemetry.execute(f"{self._event}.{kind}", measured, {**self._metadata, **more})


def message_listeners() -> bool:
    """True when somebody wants to hear of single messages."""
    return telemetry.active() and any(
        telemetry.listening(f"broadway.processor.message.{kind}") for kind in ("start", "stop", "exception")
    )


def end_message_span(span: Span, message: Message[Any], failure: Failed | None) -> None:
    """The message of *span* was handled, and failed if there is a *failure*."""
    if failure is not None and failure.exception is not None:
        span.exception(failure.exception)
    else:
        span.stop(message=message)
