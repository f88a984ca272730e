"""Numbers agree with what containers did, within bounds that leave room for the machine's other work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.cgroups import remove_cgroups
from harness.crictl import Crictl
from harness.daemon import Daemon
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Cri, Pod, limited, refusal
from tests.e2e.lifecycle.conftest import PodMaker

pytestmark = pytest.mark.root

MIB = 1 << 20


def stats_of(container: Container) -> pb.ContainerStats:
    request = pb.ContainerStatsRequest(container_id=container.id)
    stats: pb.ContainerStats = container.cri.runtime.ContainerStats(request).stats
    return stats


def pod_stats_of(pod: Pod) -> pb.PodSandboxStats:
    stats: pb.PodSandboxStats = pod.cri.runtime.PodSandboxStats(
        pb.PodSandboxStatsRequest(pod_sandbox_id=pod.id)
    ).stats
    return stats


def listed(cri: Cri, **wanted: Any) -> set[str]:
    request = pb.ListContainerStatsRequest(filter=pb.ContainerStatsFilter(**wanted))
    return {one.attributes.id for one in cri.runtime.ListContainerStats(request).stats}


def pods_listed(cri: Cri, **wanted: Any) -> set[str]:
    request = pb.ListPodSandboxStatsRequest(filter=pb.PodSandboxStatsFilter(**wanted))
    return {one.attributes.id for one in cri.runtime.ListPodSandboxStats(request).stats}


def test_unknown_ids(cri: Cri) -> None:
    code, text = refusal(lambda: cri.runtime.ContainerStats(pb.ContainerStatsRequest(container_id="x")))
    assert code is grpc.StatusCode.NOT_FOUND and "'x'" in text
    code, text = refusal(lambda: cri.runtime.PodSandboxStats(pb.PodSandboxStatsRequest(pod_sandbox_id="x")))
    assert code is grpc.StatusCode.NOT_FOUND and "'x'" in text
    code, text = refusal(lambda: cri.runtime.ContainerStats(pb.ContainerStatsRequest()))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "container_id" in text
    assert not listed(cri, id="x") and not pods_listed(cri, id="x")


def test_which_are_listed(cri: Cri, make_pod: PodMaker) -> None:
    pod, other = make_pod(labels={"app": "a"}), make_pod()
    running = pod.start("sleep 60", labels={"role": "one"})
    elsewhere = other.start("sleep 60")
    created = pod.create("true")
    ended = pod.run("true")
    assert listed(cri) == {running.id, elsewhere.id, created.id, ended.id}
    assert listed(cri, pod_sandbox_id=pod.id) == {running.id, created.id, ended.id}
    assert listed(cri, id=running.id[:20]) == {running.id}
    assert listed(cri, label_selector={"role": "one"}) == {running.id}
    assert not listed(cri, label_selector={"role": "two"})
    assert not listed(cri, id=running.id, pod_sandbox_id=other.id)
    for idle in (created, ended):
        stats = stats_of(idle)
        assert stats.attributes.id == idle.id and stats.attributes.metadata.name
        assert not stats.HasField("cpu") and not stats.HasField("memory")
    assert pods_listed(cri) == {pod.id, other.id}
    assert pods_listed(cri, label_selector={"app": "a"}) == {pod.id}
    other.stop()
    assert pods_listed(cri) == {pod.id}
    request = pb.PodSandboxStatsRequest(pod_sandbox_id=other.id)
    code, text = refusal(lambda: cri.runtime.PodSandboxStats(request))
    assert code is grpc.StatusCode.FAILED_PRECONDITION and "notready" in text


def test_streams_give_what_lists_give(cri: Cri, make_pod: PodMaker) -> None:
    made = [make_pod() for _ in range(3)]
    pods = [pod.id for pod in made]
    containers = [pod.start("sleep 60").id for pod in made]
    chunks = list(cri.runtime.StreamContainerStats(pb.StreamContainerStatsRequest()))
    assert sorted(one.attributes.id for chunk in chunks for one in chunk.container_stats) == sorted(
        containers
    )
    chunks = list(cri.runtime.StreamPodSandboxStats(pb.StreamPodSandboxStatsRequest()))
    assert sorted(one.attributes.id for chunk in chunks for one in chunk.pod_sandbox_stats) == sorted(pods)
    chunks = list(cri.runtime.StreamPodSandboxMetrics(pb.StreamPodSandboxMetricsRequest()))
    assert sorted(one.pod_sandbox_id for chunk in chunks for one in chunk.pod_sandbox_metrics) == sorted(pods)
    for pod in pods:
        cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod))
    assert not list(cri.runtime.StreamContainerStats(pb.StreamContainerStatsRequest()))


def test_cpu(pod: Pod) -> None:
    busy, idle = pod.start("while :; do :; done"), pod.start("sleep 60")
    before, began = stats_of(busy).cpu, time.monotonic_ns()
    assert before.timestamp and not before.HasField("usage_nano_cores"), "there is no interval yet"
    time.sleep(1.2)
    after, took = stats_of(busy).cpu, time.monotonic_ns() - began
    used = after.usage_core_nano_seconds.value - before.usage_core_nano_seconds.value
    assert 0.1 * took < used < 1.1 * took, "one thread, on a machine that has other work"
    rate = after.usage_nano_cores.value
    assert rate == pytest.approx(used * 1e9 / (after.timestamp - before.timestamp), rel=0.01)
    assert stats_of(idle).cpu.usage_core_nano_seconds.value < 0.05 * used + 20_000_000
    whole = pod_stats_of(pod).linux
    assert whole.cpu.usage_core_nano_seconds.value >= after.usage_core_nano_seconds.value
    assert {one.attributes.id for one in whole.containers} == {busy.id, idle.id}


def test_memory(pod: Pod) -> None:
    script = "dd if=/dev/zero of=/dev/shm/big bs=1M count=24 2>/dev/null; echo done; sleep 60"
    container = pod.start(script, linux=limited(memory_limit_in_bytes=64 * MIB))
    container.wait_output("done")
    memory = stats_of(container).memory
    assert memory.timestamp
    assert 24 * MIB <= memory.usage_bytes.value < 40 * MIB
    assert 24 * MIB <= memory.working_set_bytes.value <= memory.usage_bytes.value
    assert memory.available_bytes.value == 64 * MIB - memory.working_set_bytes.value
    assert memory.page_faults.value > 0
    assert pod_stats_of(pod).linux.memory.working_set_bytes.value >= memory.working_set_bytes.value
    unlimited = stats_of(pod.start("sleep 60")).memory
    assert not unlimited.HasField("available_bytes")


def test_writable_layer(pod: Pod) -> None:
    script = "dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null; mkdir /d; ln -s / /d/root; ln /big /d/twin"
    container = pod.start(f"{script}; echo done; sleep 60")
    container.wait_output("done")
    layer = stats_of(container).writable_layer
    assert layer.timestamp and Path(layer.fs_id.mountpoint).is_dir()
    assert 8 * MIB <= layer.used_bytes.value < 9 * MIB, "a link has no size of its own, and leads nowhere"
    assert 4 <= layer.inodes_used.value <= 8


def test_network_and_processes(cri: Cri, make_pod: PodMaker) -> None:
    pod, peer = make_pod(), make_pod()
    peer.start("nc -ll -p 9 -e cat")
    sender = pod.start("sleep 60")
    assert pod_stats_of(pod).linux.network.default_interface.name == "eth0"
    address = peer.ip
    wait_until(lambda: sender.exec(f"echo | nc -w 1 {address} 9").exit_code == 0, "the peer to listen")
    before = pod_stats_of(pod).linux.network.default_interface
    sender.tell(f"dd if=/dev/zero bs=1k count=3000 2>/dev/null | nc -w 2 {address} 9 | wc -c")
    usage = pod_stats_of(pod).linux
    sent = usage.network.default_interface.tx_bytes.value - before.tx_bytes.value
    assert 3_000_000 < sent < 4_000_000
    assert usage.network.timestamp and not usage.network.default_interface.tx_errors.value
    assert usage.process.process_count.value >= 2, "the sleep, and the fragment"


def test_the_hosts_network_is_nobodys(make_pod: PodMaker) -> None:
    host = pb.NamespaceOption(network=pb.NODE)
    context = pb.LinuxSandboxSecurityContext(namespace_options=host)
    pod = make_pod(linux=pb.LinuxPodSandboxConfig(security_context=context))
    stats = pod_stats_of(pod)
    assert stats.HasField("linux") and not stats.linux.HasField("network")
    assert stats.linux.cpu.timestamp and stats.attributes.metadata.uid == pod.config.metadata.uid


@pytest.fixture
def parent(node: Daemon) -> Iterator[str]:
    path = f"{node.cgroup}-kubepods"
    yield path
    remove_cgroups(path)


def test_a_pods_own_cgroup(cri: Cri, node: Daemon, parent: str, tmp_path: Path) -> None:
    """As the kubelet names it: its numbers count, also for a container that is long gone."""
    pod = cri.pod(tmp_path)
    pod.config.linux.cgroup_parent = f"{parent}/pod{pod.config.metadata.uid}"
    pod.run_sandbox()
    burnt = pod.run("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
    used = pod_stats_of(pod).linux.cpu.usage_core_nano_seconds.value
    assert used > 10_000_000
    burnt.remove()
    stats = pod_stats_of(pod).linux
    assert stats.cpu.usage_core_nano_seconds.value >= used
    pod.remove()


def test_crictl(crictl: Crictl, pod: Pod) -> None:
    container = pod.start("sleep 60")
    (found,) = crictl.json("stats", container.id[:13])["stats"]
    assert found["attributes"]["id"] == container.id
    table = crictl.run("stats").replace("\x1b[2J\x1b[H", "").splitlines()
    assert table[0].split()[:3] == ["CONTAINER", "NAME", "CPU"] and len(table) == 2
    assert container.id[:13] in table[1]
    (found,) = crictl.json("statsp", pod.id[:13])["stats"]
    assert found["attributes"]["id"] == pod.id
    assert len(crictl.run("statsp").splitlines()) == 2
    names = {one["name"] for one in crictl.json("metricdescs")["descriptors"]}
    (metrics,) = [one for one in crictl.json("metricsp")["podMetrics"] if one["podSandboxId"] == pod.id]
    sent = {one["name"] for container in metrics["containerMetrics"] for one in container["metrics"]}
    assert sent | {one["name"] for one in metrics["metrics"]} <= names


def test_crictl_info(crictl: Crictl, node: Daemon) -> None:
    """`stateDir` is where critest tries whether mounts can be mapped to other ids."""
    info = crictl.json("info")
    config = info["config"]
    assert (config["stateDir"], config["rootDir"]) == (str(node.state), str(node.root))
    assert config["cgroupVersion"] in ("v1", "hybrid", "v2") and config["cgroupDriver"] == "cgroupfs"
    assert config["configuration"]["listen"] == node.endpoint
    assert [pool["name"] for pool in config["statistics"]["pools"]] == ["default"]
    assert {one["type"]: one["status"] for one in info["status"]["conditions"]}["RuntimeReady"]
