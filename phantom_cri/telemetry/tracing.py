"""OpenTelemetry spans in the caller's context; disabled, and not imported, unless OTEL_* is set.

The variables are the standard ones (OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_SDK_DISABLED …);
the SDK itself reads all except the choice of the exporter.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from phantom_cri.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

# As the kubelet sends it: strings, and bytes for keys that end in -bin.
Metadata = Iterable[tuple[str, str | bytes]]

_OFF: AbstractContextManager[Any] = nullcontext()


class Tracing:
    """Spans of this process, sent in batches by a thread of the SDK."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import propagate, trace

        self._provider = provider
        self._tracer = provider.get_tracer("phantom_cri")
        self._extract = propagate.extract
        self._server = trace.SpanKind.SERVER

    def call(self, method: str, metadata: Metadata) -> AbstractContextManager[Any]:
        """The span of one RPC, a child of the `traceparent` in its metadata."""
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        attributes = {"rpc.system": "grpc", "rpc.method": method}
        return self._tracer.start_as_current_span(
            method, context=self._extract(carrier), kind=self._server, attributes=attributes
        )

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """A span of one stage inside the current call."""
        return self._tracer.start_as_current_span(name)

    def close(self) -> None:
        """Send the remaining spans; waits for the exporter."""
        self._provider.shutdown()


class NoTracing:
    """The same interface, doing nothing."""

    def call(self, method: str, metadata: Metadata) -> AbstractContextManager[Any]:
        return _OFF

    def stage(self, name: str) -> AbstractContextManager[Any]:
        return _OFF

    def close(self) -> None:
        pass


def from_environment(environ: Mapping[str, str] = os.environ) -> Tracing | NoTracing:
    """Raises ConfigError when the variables name an exporter or protocol that does not exist."""
    exporter = _wanted_exporter(environ)
    if not exporter:
        return NoTracing()
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: "phantom-cri"}))
    provider.add_span_processor(BatchSpanProcessor(_exporter(exporter, environ)))
    return Tracing(provider)


def _wanted_exporter(environ: Mapping[str, str]) -> str:
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ""
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    implied = "otlp" if any(environ.get(name) for name in endpoints) else ""
    wanted = environ.get("OTEL_TRACES_EXPORTER") or implied
    return "" if wanted == "none" else wanted


def _exporter(name: str, environ: Mapping[str, str]) -> SpanExporter:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if name != "otlp":
        raise ConfigError(f"OTEL_TRACES_EXPORTER: {name!r} is not otlp, console or none")
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol in (None, "", "grpc"):
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http import trace_exporter

        return trace_exporter.OTLPSpanExporter()
    raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not grpc or http/protobuf")
