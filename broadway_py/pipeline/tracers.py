"""Makes the tracer of a pipeline with ``tracing=True``. Nothing of OpenTelemetry is loaded before."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from broadway_py.errors import OptionsError
from broadway_py.tracing import Tracer

__all__ = ["EnterHeaders", "check_tracing", "new_entry", "new_tracer"]

#: Makes the span that has these headers the current one of a context.
EnterHeaders = Callable[[Mapping[str, str]], None]


def check_tracing() -> None:
    """Refuses ``tracing=True`` if OpenTelemetry is not installed.

    Raises:
        OptionsError: it says what to install.
    """
    try:
        import opentelemetry.propagate  # noqa: PLC0415  # loaded only for pipelines that make traces
        import opentelemetry.trace  # noqa: F401, PLC0415  # as above
    except ImportError as missing:
        raise OptionsError(
            ("tracing",), f"true needs OpenTelemetry ({missing}): pip install 'broadway-py[otel]', or leave tracing out"
        ) from missing


def new_tracer(pipeline: str) -> Tracer:
    """Returns the tracer of the pipeline of this name. Call it after ``setup``, which may set up OpenTelemetry."""
    from broadway_py.otel.tracer import OpenTelemetryTracer  # noqa: PLC0415  # as above

    return OpenTelemetryTracer(pipeline)


def new_entry() -> EnterHeaders:
    """Returns what a worker process needs instead of a tracer. Call it after ``setup_worker``."""
    from broadway_py.otel.worker import new_entry as made  # noqa: PLC0415  # as above

    return made()
