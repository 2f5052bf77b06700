"""A receiver of OTLP over HTTP, as a collector has one: what a test exports is there to be read."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

__all__ = ["Collector", "SpanSeen", "Spans", "running_collector"]


@dataclass(frozen=True, slots=True)
class SpanSeen:
    """A span, as a collector gets it."""

    name: str
    kind: str
    trace: str
    id: str
    #: "" if it begins a trace.
    parent: str
    #: (trace, span) of each link.
    links: tuple[tuple[str, str], ...]
    attributes: Mapping[str, object]
    is_error: bool
    #: The text of the status.
    said: str
    events: tuple[str, ...]
    #: What made it, such as ``broadway_py``.
    scope: str
    #: The ``service.name`` of the process.
    service: str


class Spans(list[SpanSeen]):
    """Spans, in the order of their arrival."""

    def named(self, name: str) -> Spans:
        """Returns those of this name."""
        return Spans(span for span in self if span.name == name)

    def one(self, name: str) -> SpanSeen:
        """Returns the only span of this name."""
        (found,) = self.named(name)
        return found

    def of_trace(self, trace: str) -> Spans:
        """Returns those of this trace."""
        return Spans(span for span in self if span.trace == trace)

    def above(self, span: SpanSeen) -> list[str]:
        """Returns the names of the parents of *span*, from its own parent to the root."""
        by_id = {one.id: one for one in self}
        names: list[str] = []
        while span.parent in by_id:
            span = by_id[span.parent]
            names.append(span.name)
        return names


class Collector:
    """Keeps the spans that arrive."""

    def __init__(self, endpoint: str) -> None:
        #: Where an exporter sends to.
        self.endpoint = endpoint
        self._spans = Spans()
        self._lock = threading.Lock()

    def take(self, body: bytes) -> None:
        """Takes in a request."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for of_resource in request.resource_spans:
                resource = _values(of_resource.resource.attributes)
                for of_scope in of_resource.scope_spans:
                    self._spans += [
                        _seen(span, of_scope.scope.name, str(resource.get("service.name", "")))
                        for span in of_scope.spans
                    ]

    @property
    def spans(self) -> Spans:
        """Returns all spans that have arrived."""
        with self._lock:
            return Spans(self._spans)

    def forget(self) -> None:
        """Forgets all spans."""
        with self._lock:
            self._spans.clear()


def _seen(span: WireSpan, scope: str, service: str) -> SpanSeen:
    return SpanSeen(
        span.name,
        WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        _values(span.attributes),
        span.status.code == Status.STATUS_CODE_ERROR,
        span.status.message,
        tuple(event.name for event in span.events),
        scope,
        service,
    )


def _values(attributes: Any) -> dict[str, object]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        cast("_Server", self.server).collector.take(body)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the standard library
        """Writes nothing: the test sees what has arrived."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    collector: Collector


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Runs a collector on a free port of this machine."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.collector = Collector(f"http://127.0.0.1:{server.server_port}/v1/traces")
        thread = threading.Thread(target=server.serve_forever, name="collector", daemon=True)
        thread.start()
        try:
            yield server.collector
        finally:
            server.shutdown()
            thread.join()
