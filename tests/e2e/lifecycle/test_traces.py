"""Spans as a collector receives them: each call, and the stages of a pod's start inside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Cri, refusal

pytestmark = pytest.mark.root


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.spans: list[Span] = []

    @property
    def environment(self) -> dict[str, str]:
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_BSP_SCHEDULE_DELAY": "100",  # milliseconds
        }


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_calls_and_the_stages_inside_them(
    collector: Collector, make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path
) -> None:
    daemon = make_daemon({"pools": [{"name": "default", "size": 1}]}, collector.environment).start()
    with closing(Cri(daemon.endpoint)) as cri:
        cri.pull(busybox_image)
        pod = cri.pod(tmp_path).run_sandbox()
        pod.run("true")
        refusal(lambda: pod.create("true", image=pb.ImageSpec(image="none.test/absent:1")))
        daemon.stop()

    def sent() -> dict[str, list[Span]]:
        found: dict[str, list[Span]] = {}
        for span in list(collector.spans):
            found.setdefault(span.name, []).append(span)
        return found

    wait_until(lambda: "start execve" in sent(), "the spans of a start")
    spans = sent()
    calls = {
        "RunPodSandbox": {"run claim", "run record", "run identity", "run adopt"},
        "CreateContainer": {
            "create image",
            "create snapshot",
            "prepare cgroup",
            "prepare plan",
            "prepare kernel",
        },
        "StartContainer": {"start prepared", "start execve", "start record"},
    }
    for call, stages in calls.items():
        parent = spans[call][0]
        assert parent.kind == Span.SPAN_KIND_SERVER
        for stage in stages:
            child = spans[stage][0]
            assert (child.parent_span_id, child.trace_id) == (parent.span_id, parent.trace_id), stage
            assert parent.start_time_unix_nano <= child.start_time_unix_nano <= child.end_time_unix_nano
    failed = spans["CreateContainer"][1]
    assert failed.status.code == Status.STATUS_CODE_ERROR
    (image,) = (one for one in spans["create image"] if one.parent_span_id == failed.span_id)
    assert image.status.code == Status.STATUS_CODE_ERROR
