from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from phantom_cri.errors import ConfigError, NotFound
from phantom_cri.telemetry.tracing import NoTracing, Tracing, from_environment

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "True"},
    ],
)
def test_off_unless_asked_for(environ: dict[str, str]) -> None:
    assert isinstance(from_environment(environ), NoTracing)


def test_the_sdk_is_not_imported_when_off() -> None:
    code = (
        "import sys, phantom_cri.cri.server, phantom_cri.telemetry.tracing as t; t.from_environment({});"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_EXPORTER": "console"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        },
    ],
)
def test_on_when_asked_for(environ: dict[str, str]) -> None:
    tracing = from_environment(environ)
    assert isinstance(tracing, Tracing)
    tracing.close()


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "OTEL_TRACES_EXPORTER: 'jaeger'"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "x"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'x'",
        ),
    ],
)
def test_an_unknown_choice_is_refused(environ: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        from_environment(environ)


def test_a_call_is_a_child_of_its_caller_and_holds_its_stages() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    with tracing.call("RunPodSandbox", [("traceparent", PARENT), ("x-bin", b"\xff")]), tracing.stage("claim"):
        pass
    stage, call = exporter.get_finished_spans()
    assert call.name == "RunPodSandbox" and call.kind is SpanKind.SERVER
    assert call.context and call.parent and stage.parent
    assert f"{call.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{call.parent.span_id:016x}" == "b7ad6b7169203331"
    assert stage.name == "claim" and stage.parent.span_id == call.context.span_id
    tracing.close()


def test_a_failed_call_is_a_failed_span() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    with pytest.raises(NotFound), tracing.call("StopContainer", []):
        raise NotFound("container x")
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR and span.parent is None
    tracing.close()
