"""Reads the current usage of containers and pods from the kernel, on one dedicated thread.

A node may have 1000 pods, at some 0.1 to 0.3 ms each: too much for the event loop. So the loop only collects
the records (they are immutable, so this is a consistent view), and the thread reads. Concurrent requests wait
for each other, and do not use threads that pod starts need.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from typing import NamedTuple, TypeVar

from phantom_cri import fragments
from phantom_cri.cgroups import open_files_limit
from phantom_cri.errors import SHORTAGES, NotFound, kernel_error
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.lifecycle.stats.rates import Rates
from phantom_cri.lifecycle.stats.sums import add, of_process, time_only
from phantom_cri.model import ContainerRecord, FilesystemUsage, SandboxRecord
from phantom_cri.network.counters import read_interfaces
from phantom_cri.usage import CgroupUsage, ContainerUsage, InterfaceUsage, PodUsage

PATIENCE_S = 0.2
"""Seconds that a request waits for writable layers that were never measured before."""

T = TypeVar("T")


class Subject(NamedTuple):
    """A pod at the time of the request; `ended`: exited containers whose cgroup still exists."""

    record: SandboxRecord
    containers: tuple[ContainerRecord, ...]
    ended: tuple[ContainerRecord, ...]


class Measuring:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._rates = Rates()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage")

    async def containers(self, chosen: Iterable[Container]) -> list[ContainerUsage]:
        """A container that does not run only has its writable layer, which counts towards the pod's disk."""
        records = [container.record for container in chosen]
        return await self._on_thread(partial(self._read_containers, records, detailed=False))

    async def pods(self, chosen: Iterable[Pod], *, detailed: bool = False) -> list[PodUsage]:
        """Usage of each pod whose fragment still runs then. `detailed`: also what only metrics need."""
        subjects = [_subject(pod) for pod in chosen]
        return await self._on_thread(partial(self._read_pods, subjects, detailed))

    async def everything_of(self, cgroup: str) -> CgroupUsage:
        """Raises NotFound."""
        return await self._on_thread(partial(self._runtime.cgroups.usage, cgroup, detailed=True))

    def _on_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        records = self._runtime.records
        if len(self._rates) > 2 * (len(records.pods) + len(records.containers)) + 100:
            self._thread.submit(self._rates.keep, records.pods.keys() | records.containers.keys())
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _read_containers(self, records: Sequence[ContainerRecord], *, detailed: bool) -> list[ContainerUsage]:
        layers = self._runtime.images.written([record.id for record in records], PATIENCE_S)
        return [self._read_container(record, layers.get(record.id), detailed) for record in records]

    def _read_container(
        self, record: ContainerRecord, layer: FilesystemUsage | None, detailed: bool
    ) -> ContainerUsage:
        cgroup = self._read_cgroup(record, detailed) if record.state == "running" else None
        if cgroup is None:
            return ContainerUsage(record, None, None, layer)
        rate = self._rates.rate(record.id, cgroup.timestamp, cgroup.cpu.usage_ns)
        open_files = open_files_limit(record.process.pid) if detailed and record.process else None
        return ContainerUsage(record, cgroup, rate, layer, open_files)

    def _read_cgroup(self, record: ContainerRecord, detailed: bool) -> CgroupUsage | None:
        try:
            return self._runtime.cgroups.usage(record.cgroup, detailed=detailed)
        except NotFound:
            return None

    def _read_pods(self, subjects: Sequence[Subject], detailed: bool) -> list[PodUsage]:
        records = [record for subject in subjects for record in subject.containers]
        usages = {usage.record.id: usage for usage in self._read_containers(records, detailed=detailed)}
        found = []
        for subject in subjects:
            containers = tuple(usages[record.id] for record in subject.containers)
            pod = self._read_pod(subject, containers)
            if pod is not None:
                found.append(pod)
        return found

    def _read_pod(self, subject: Subject, containers: tuple[ContainerUsage, ...]) -> PodUsage | None:
        record = subject.record
        if record.fragment is None:
            return None
        try:
            interfaces: tuple[InterfaceUsage, ...] = ()
            if record.config.security.namespaces.network != "node":
                interfaces = read_interfaces(record.fragment.pid)
            timestamp = time.time_ns()
            proc_stat = fragments.read_proc_stat(record.fragment.pid)
        except OSError as error:
            if error.errno in SHORTAGES:  # a shortage in this process, not an error of the pod
                raise kernel_error(f"stats of pod sandbox {record.id}", error.errno or 0) from error
            return None
        if proc_stat.start_time != record.fragment.start_time:
            return None  # the pid was reused, so the interfaces were not the pod's
        cgroup = self._own_cgroup(record) or self._sum(subject, containers, of_process(proc_stat))
        rate = self._rates.rate(record.id, cgroup.timestamp, cgroup.cpu.usage_ns)
        return PodUsage(record, cgroup, rate, timestamp, interfaces, containers)

    def _own_cgroup(self, record: SandboxRecord) -> CgroupUsage | None:
        if not has_own_cgroup(record):
            return None
        try:
            return self._runtime.cgroups.usage(record.cgroup_parent)
        except NotFound:  # no process was ever started in it
            return None

    def _sum(
        self, subject: Subject, containers: Sequence[ContainerUsage], fragment: CgroupUsage
    ) -> CgroupUsage:
        running = [one.cgroup for one in containers if one.cgroup is not None]
        ended = [usage for one in subject.ended if (usage := self._read_cgroup(one, False)) is not None]
        return reduce(add, (*running, *map(time_only, ended)), fragment)


def _subject(pod: Pod) -> Subject:
    containers = list(pod.containers.values())
    return Subject(
        record=pod.record,
        containers=tuple(one.record for one in containers),
        ended=tuple(one.record for one in containers if one.record.state == "exited" and one.has_cgroup),
    )


def has_own_cgroup(record: SandboxRecord) -> bool:
    """Whether `cgroup_parent` is only this pod's: named `pod<uid>`, as by the kubelet for either driver.

    In a slice's name dashes separate levels, so there the uid has underscores.
    """
    uid = record.config.metadata.uid
    name = record.cgroup_parent.rstrip("/").rpartition("/")[2]
    if not uid:
        return False
    return name == f"pod{uid}" or name.removesuffix(".slice").endswith(f"-pod{uid.replace('-', '_')}")
