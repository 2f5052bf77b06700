"""Traces with OpenTelemetry. Only pipelines with ``tracing=True`` load it; it needs the extra ``otel``.

It uses the API alone. Which spans are kept, and where they go, is what the program has told OpenTelemetry's SDK.
"""
