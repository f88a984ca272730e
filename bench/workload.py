"""The pod that is measured, and the measurements: what a kubelet would ask for, timed call by call."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench.client import CriClient
from phantom_cri.api.cri.v1 import api_pb2 as cri

# Unusual enough to tell the containers' own processes from everybody else's.
WORKLOAD = ("/bin/sleep", "86413")

# What the kubelet sends for every container that is not privileged.
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

POD_NAMESPACES = cri.NamespaceOption(network=cri.POD, pid=cri.CONTAINER, ipc=cri.POD)
RUNTIME_DEFAULT = cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)

_numbers = itertools.count(1)


@dataclass
class Samples:
    """Durations in milliseconds and rates in MiB/s by name of what was timed; cycles per second by burst."""

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    mib_per_second: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cycles_per_second: list[float] = field(default_factory=list)

    def add(self, name: str, value: float) -> None:
        self.milliseconds[name].append(value)

    def add_rate(self, name: str, bytes_per_second: float) -> None:
        self.mib_per_second[name].append(bytes_per_second / (1 << 20))


@dataclass(frozen=True)
class Pod:
    sandbox_id: str
    container_id: str
    durations: dict[str, float]


class PodMaker:
    """Starts and removes pods of one image on one endpoint; each gets a name of its own."""

    def __init__(self, client: CriClient, image: str, logs: Path, cgroup_parent: str, handler: str = ""):
        self.handler = handler
        self.client = client
        self.image = image
        self.logs = logs
        self.cgroup_parent = cgroup_parent

    def sandbox_config(self) -> cri.PodSandboxConfig:
        number = next(_numbers)
        name, uid = f"bench-{number}", f"00000000-0000-4000-8000-{number:012d}"
        return cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, uid=uid, namespace="bench"),
            hostname=name,
            log_directory=str(self.logs / f"bench_{name}_{uid}"),
            dns_config=cri.DNSConfig(servers=["10.96.0.10"], searches=["bench.svc.cluster.local"]),
            labels={"io.kubernetes.pod.name": name, "io.kubernetes.pod.uid": uid},
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=self.cgroup_parent,
                security_context=cri.LinuxSandboxSecurityContext(
                    namespace_options=POD_NAMESPACES, seccomp=RUNTIME_DEFAULT
                ),
            ),
        )

    def container_config(self) -> cri.ContainerConfig:
        return cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="main"),
            image=cri.ImageSpec(image=self.image),
            command=WORKLOAD,
            envs=[cri.KeyValue(key="KUBERNETES_SERVICE_HOST", value=b"10.96.0.1")],
            labels={"io.kubernetes.container.name": "main"},
            log_path="main/0.log",
            linux=cri.LinuxContainerConfig(
                resources=cri.LinuxContainerResources(
                    cpu_shares=102, memory_limit_in_bytes=64 << 20, oom_score_adj=1000
                ),
                security_context=cri.LinuxContainerSecurityContext(
                    namespace_options=POD_NAMESPACES,
                    seccomp=RUNTIME_DEFAULT,
                    masked_paths=MASKED_PATHS,
                    readonly_paths=READONLY_PATHS,
                ),
            ),
        )

    def start(self) -> Pod:
        """RunPodSandbox, CreateContainer, StartContainer; durations by verb and their sum as `pod`."""
        config = self.sandbox_config()
        (Path(config.log_directory) / "main").mkdir(parents=True)
        ran, run_ms = self.client.timed(
            "RunPodSandbox",
            cri.RunPodSandboxRequest(config=config, runtime_handler=self.handler),
            cri.RunPodSandboxResponse,
        )
        create = cri.CreateContainerRequest(
            pod_sandbox_id=ran.pod_sandbox_id, config=self.container_config(), sandbox_config=config
        )
        created, create_ms = self.client.timed("CreateContainer", create, cri.CreateContainerResponse)
        start = cri.StartContainerRequest(container_id=created.container_id)
        _, start_ms = self.client.timed("StartContainer", start, cri.StartContainerResponse)
        durations = {
            "RunPodSandbox": run_ms,
            "CreateContainer": create_ms,
            "StartContainer": start_ms,
            "pod": run_ms + create_ms + start_ms,
        }
        return Pod(ran.pod_sandbox_id, created.container_id, durations)

    def exec_true(self, pod: Pod) -> float:
        """One ExecSync of `true`; milliseconds. Raises RuntimeError when it does not exit 0."""
        request = cri.ExecSyncRequest(container_id=pod.container_id, cmd=["true"], timeout=10)
        done, milliseconds = self.client.timed("ExecSync", request, cri.ExecSyncResponse)
        if done.exit_code:
            raise RuntimeError(f"ExecSync true: exit {done.exit_code}: {done.stderr!r}")
        return milliseconds

    def check_runs(self, pod: Pod) -> None:
        """Raises RuntimeError unless the container runs: a start that started nothing would look fast."""
        request = cri.ContainerStatusRequest(container_id=pod.container_id)
        state = self.client.runtime("ContainerStatus", request, cri.ContainerStatusResponse).status.state
        if state != cri.CONTAINER_RUNNING:
            raise RuntimeError(
                f"container {pod.container_id} is {cri.ContainerState.Name(state)}, not running"
            )

    def remove(self, pod: Pod) -> dict[str, float]:
        """StopPodSandbox, RemovePodSandbox; durations by verb and their sum as `teardown`."""
        stop = cri.StopPodSandboxRequest(pod_sandbox_id=pod.sandbox_id)
        _, stop_ms = self.client.timed("StopPodSandbox", stop, cri.StopPodSandboxResponse)
        remove = cri.RemovePodSandboxRequest(pod_sandbox_id=pod.sandbox_id)
        _, remove_ms = self.client.timed("RemovePodSandbox", remove, cri.RemovePodSandboxResponse)
        return {"StopPodSandbox": stop_ms, "RemovePodSandbox": remove_ms, "teardown": stop_ms + remove_ms}


def measure_serial(maker: PodMaker, pods: int, execs: int, pause: float, samples: Samples) -> None:
    """One pod after the other, with `execs` ExecSync calls in each and `pause` seconds after each."""
    for _ in range(pods):
        pod = maker.start()
        for name, value in pod.durations.items():
            samples.add(name, value)
        maker.check_runs(pod)
        for _ in range(execs):
            samples.add("ExecSync", maker.exec_true(pod))
        for name, value in maker.remove(pod).items():
            samples.add(name, value)
        time.sleep(pause)


def measure_burst(maker: PodMaker, workers: int, seconds: float, samples: Samples) -> None:
    """`workers` threads run pod cycles for `seconds`; adds cycles per second and each start under load."""
    lock = threading.Lock()
    begin = time.monotonic()

    def cycle_until_the_end() -> int:
        cycles = 0
        while time.monotonic() < begin + seconds:
            pod = maker.start()
            maker.remove(pod)
            with lock:
                samples.add(f"pod, {workers} at once", pod.durations["pod"])
            cycles += 1
        return cycles

    with ThreadPoolExecutor(workers) as threads:
        futures = [threads.submit(cycle_until_the_end) for _ in range(workers)]
        cycles = sum(future.result() for future in futures)
    samples.cycles_per_second.append(cycles / (time.monotonic() - begin))
