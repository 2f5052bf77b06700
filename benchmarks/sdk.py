"""OpenTelemetry's SDK, as a measured program sets it up or does without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["MODES", "set_up"]

#: Without tracing; with it, but no SDK; with an SDK that keeps no span; with one that keeps all and exports nothing.
MODES: Final = ("off", "no-sdk", "not-sampled", "sampled")


def set_up(mode: str) -> bool:
    """Set OpenTelemetry up as *mode* says. Returns whether the pipeline makes traces."""
    if mode in {"not-sampled", "sampled"}:
        # Loaded only here: a program without traces does not have it.
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased  # noqa: PLC0415

        class Nowhere(SpanExporter):
            def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
                return SpanExportResult.SUCCESS

        provider = TracerProvider(ParentBased(ALWAYS_ON if mode == "sampled" else ALWAYS_OFF))
        provider.add_span_processor(BatchSpanProcessor(Nowhere()))
        trace.set_tracer_provider(provider)
    return mode != "off"
