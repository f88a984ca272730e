"""The daemon's metrics: one registry, served for Prometheus.

Every name is explained in docs/metrics.md, which a test compares with this module. Base units (seconds,
bytes); labels have few values, never an id. The methods look up labels once and keep the child, since
prometheus_client's look-up costs more than the observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Thread
from typing import Literal
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    start_http_server,
)

from phantom_cri.errors import ConfigError

# 0.1 ms to 30 s: a warm stage takes less than a millisecond, a pull of a big image half a minute.
BUCKETS = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01,
    0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 10.0, 30.0,
)  # fmt: skip

Start = Literal["warm", "cold"]


class Metrics:
    """All metrics of one daemon. Cheap enough for each stage of a pod's start: `rpc_done`, `pod_stage`."""

    def __init__(self, version: str = "") -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("phantom_build", "Version of this daemon", registry=registry).info({"version": version})
        self._rpc_seconds = Histogram(
            "phantom_rpc_seconds", "Time of an RPC", ["method"], buckets=BUCKETS, registry=registry
        )
        self._rpc_errors = Counter(
            "phantom_rpc_errors", "RPCs that failed", ["method", "code"], registry=registry
        )
        self._pod_start_seconds = Histogram(
            "phantom_pod_start_seconds",
            "Time of one stage of a pod's start",
            ["stage", "start"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._sandboxes = Gauge("phantom_sandboxes", "Pods by state", ["state"], registry=registry)
        self._containers = Gauge("phantom_containers", "Containers by state", ["state"], registry=registry)
        self._policy_containers = Gauge(
            "phantom_policy_containers", "Containers by the policy they have", ["policy"], registry=registry
        )
        self._durable = Gauge(
            "phantom_records_durable",
            "1 if records of pods and containers would survive a reboot",
            registry=registry,
        )
        self._policy = Info("phantom_policy", "A loaded policy", ["policy"], registry=registry)
        self._policies_seen: set[str] = set()
        self._declare_pools(registry)
        self._declare_images(registry)
        self._declare_streams(registry)
        self._rpc_timers: dict[str, Histogram] = {}
        self._stage_timers: dict[tuple[str, str], Histogram] = {}
        self._claims: dict[tuple[str, str], Counter] = {}

    def _declare_pools(self, registry: CollectorRegistry) -> None:
        self._fragments = Gauge(
            "phantom_pool_fragments", "Fragments of a pool by state", ["pool", "state"], registry=registry
        )
        self._pool_claims = Counter(
            "phantom_pool_claims", "Claims on a pool", ["pool", "result"], registry=registry
        )
        self._cold_starts = Counter(
            "phantom_pool_cold_starts", "Pods started without a warm fragment", ["reason"], registry=registry
        )
        self._retired = Counter(
            "phantom_pool_retired", "Fragments ended unused", ["pool", "reason"], registry=registry
        )

    def _declare_images(self, registry: CollectorRegistry) -> None:
        self._pulls = Counter("phantom_image_pulls", "Pulls of images", ["result"], registry=registry)
        self._pull_seconds = Histogram(
            "phantom_image_pull_seconds", "Time of a pull", buckets=BUCKETS, registry=registry
        )
        self._pull_bytes = Counter(
            "phantom_image_pull_bytes", "Compressed bytes fetched from registries", registry=registry
        )
        self._pulls_in_flight = Gauge("phantom_image_pulls_in_flight", "Pulls in progress", registry=registry)

    def _declare_streams(self, registry: CollectorRegistry) -> None:
        self._sessions = Gauge("phantom_streaming_sessions", "Connected clients", ["kind"], registry=registry)
        self._port_forwards = Counter(
            "phantom_port_forwards", "Connections to ports of pods", ["result"], registry=registry
        )

    def rpc_done(self, method: str, code: str, seconds: float) -> None:
        """One RPC ended with this gRPC code."""
        timer = self._rpc_timers.get(method)
        if timer is None:
            timer = self._rpc_timers[method] = self._rpc_seconds.labels(method)
        timer.observe(seconds)
        if code != "OK":
            self._rpc_errors.labels(method, code).inc()

    def pod_stage(self, stage: str, start: Start, seconds: float) -> None:
        """One stage of a pod's start took `seconds`; `start`: warm or cold."""
        timer = self._stage_timers.get((stage, start))
        if timer is None:
            timer = self._stage_timers[stage, start] = self._pod_start_seconds.labels(stage, start)
        timer.observe(seconds)

    def pool_claim(self, pool: str, result: Literal["hit", "miss"]) -> None:
        claims = self._claims.get((pool, result))
        if claims is None:
            claims = self._claims[pool, result] = self._pool_claims.labels(pool, result)
        claims.inc()

    def cold_start(self, reason: str) -> None:
        """`reason`: one of a few words, since it is a label."""
        self._cold_starts.labels(reason).inc()

    def fragment_retired(self, pool: str, reason: str) -> None:
        self._retired.labels(pool, reason).inc()

    def pool_fragments(self, pool: str, by_state: Mapping[str, int]) -> None:
        for state, number in by_state.items():
            self._fragments.labels(pool, state).set(number)

    def sandboxes(self, by_state: Mapping[str, int]) -> None:
        for state, number in by_state.items():
            self._sandboxes.labels(state).set(number)

    def containers(self, by_state: Mapping[str, int]) -> None:
        for state, number in by_state.items():
            self._containers.labels(state).set(number)

    def records_durable(self, durable: bool) -> None:
        self._durable.set(durable)

    def policy_loaded(self, name: str, digest: str, is_default: bool) -> None:
        """`digest`: of the policy's content."""
        self._policy.labels(name).info({"digest": digest, "default": str(is_default).lower()})

    def policy_containers(self, by_policy: Mapping[str, int]) -> None:
        """Set the gauges; a policy that is missing now gets 0."""
        self._policies_seen.update(by_policy)
        for policy in self._policies_seen:
            self._policy_containers.labels(policy).set(by_policy.get(policy, 0))

    def session_opened(self, kind: Literal["exec", "attach"]) -> None:
        self._sessions.labels(kind).inc()

    def session_closed(self, kind: Literal["exec", "attach"]) -> None:
        self._sessions.labels(kind).dec()

    def port_forwarded(self, result: str) -> None:
        """`result`: "ok" or the gRPC code's name."""
        self._port_forwards.labels(result).inc()

    def image_pull_began(self) -> None:
        self._pulls_in_flight.inc()

    def image_bytes_pulled(self, count: int) -> None:
        """`count` more bytes; called during a pull."""
        self._pull_bytes.inc(count)

    def image_pulled(self, result: str, seconds: float) -> None:
        """A pull has ended. `result`: "ok" or the gRPC code's name."""
        self._pulls_in_flight.dec()
        self._pulls.labels(result).inc()
        self._pull_seconds.observe(seconds)


class MetricsServer:
    """http://ADDRESS/metrics, served by a thread of prometheus_client."""

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        self._server, self._thread = server, thread
        self.port = server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(metrics: Metrics, address: str) -> MetricsServer:
    """Listen on `HOST:PORT` (`[::1]:PORT` for IPv6, port 0 for any). Raises ConfigError."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"metrics address: {address!r} is not HOST:PORT")
    try:
        server, thread = start_http_server(int(port), host.strip("[]") or "127.0.0.1", metrics.registry)
    except OSError as error:
        raise ConfigError(
            f"metrics address: cannot listen on {address}: {error.strerror or error}"
        ) from error
    return MetricsServer(server, thread)
