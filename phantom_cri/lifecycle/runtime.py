"""The dependencies of all verbs, composed by `phantom_cri.__main__`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from phantom_cri.cdi import Registry
from phantom_cri.cgroups import Cgroups, LaunchFds
from phantom_cri.checkpoint import Criu
from phantom_cri.config import Config
from phantom_cri.drivers import Driver
from phantom_cri.errors import FailedPrecondition
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.images import ImageService
from phantom_cri.lifecycle.durable import DurableRecords
from phantom_cri.lifecycle.events import Events
from phantom_cri.lifecycle.live import Pod
from phantom_cri.lifecycle.records import Records
from phantom_cri.model import ContainerRecord
from phantom_cri.network import NetworkDriver
from phantom_cri.policy import KeptPolicies, Policy, PolicyBook, Selinux
from phantom_cri.pools import Pool, Profile
from phantom_cri.streaming import StreamServer
from phantom_cri.telemetry.metrics import Metrics
from phantom_cri.telemetry.tracing import NoTracing, Tracing

log = logging.getLogger("phantom_cri.lifecycle")


@dataclass(frozen=True, slots=True)
class Handler:
    """A runtime handler. `profiles`: of the pools that its pods use, in order.

    driver: name of the runtime driver of its pods' containers; policy: their policy.
    """

    name: str
    profiles: tuple[Profile, ...]
    driver: str
    policy: Policy


@dataclass(slots=True, eq=False)
class Runtime:
    config: Config
    records: Records
    durable: DurableRecords
    images: ImageService
    network: NetworkDriver
    cgroups: Cgroups
    policies: PolicyBook
    kept_policies: KeptPolicies
    metrics: Metrics
    streams: StreamServer
    host_mounts: int  # fd of the mount namespace in which host paths are resolved
    criu: Criu
    fragments_cgroup: LaunchFds  # the fragments' own cgroup, neither the daemon's nor a pod's
    profiles: Sequence[Profile] = ()
    pools: dict[str, Pool[FragmentHandle]] = field(default_factory=dict)
    handlers: dict[str, Handler] = field(default_factory=dict)
    drivers: Mapping[str, Driver] = field(default_factory=dict)
    cdi: Registry = field(default_factory=lambda: Registry(()))
    events: Events = field(default_factory=Events)
    selinux: Selinux = field(default_factory=Selinux)
    tracing: Tracing | NoTracing = field(default_factory=NoTracing)
    userns_unavailable: str = "not tried yet"  # why pods cannot have user namespaces; "": they can

    @property
    def shapes_traffic(self) -> bool:
        """Whether bandwidth annotations of pods are applied: only by CNI plugins."""
        return self.config.network.driver == "cni"

    def pool_of(self, pod: Pod) -> Pool[FragmentHandle] | None:
        return self.pools.get(pod.record.pool)

    def handler_of(self, pod: Pod) -> Handler:
        """Raises FailedPrecondition for a handler that was removed from the configuration."""
        name = pod.record.runtime_handler
        if name not in self.handlers:
            raise FailedPrecondition(
                f"pod sandbox {pod.id}: its runtime handler {name!r} was removed; known are "
                f"{', '.join(map(repr, self.handlers))} (configuration: handlers)"
            )
        return self.handlers[name]

    def driver_of(self, record: ContainerRecord) -> Driver:
        """Raises FailedPrecondition for a driver that only a later release has."""
        if record.driver not in self.drivers:
            raise FailedPrecondition(
                f"container {record.id}: created by the runtime driver {record.driver!r}, which this "
                f"phantom-cri does not have, only {', '.join(self.drivers)}"
            )
        return self.drivers[record.driver]

    def stages(self, verb: str) -> Stages:
        """A stopwatch for one `verb`."""
        return Stages(verb, self.tracing)

    def observe(self, pod: Pod, stages: Stages) -> None:
        """Store the durations of a start's stages, with the pod and in the metrics."""
        for name, seconds in (*stages.seconds.items(), ("total", stages.total())):
            label = f"{stages.verb} {name}"
            pod.stages[label] = seconds
            self.metrics.pod_stage(label, pod.record.start, seconds)


class Stages:
    """Stopwatch of one verb: seconds by stage, in order; each stage is a span too."""

    def __init__(self, verb: str, tracing: Tracing | NoTracing) -> None:
        self.verb, self._tracing = verb, tracing
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            with self._tracing.stage(f"{self.verb} {name}"):
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def total(self) -> float:
        return time.perf_counter() - self._began
