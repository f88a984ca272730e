"""Pods: their name, files, network, sysctls and place in the cgroup tree, and how they are found."""

from __future__ import annotations

import os
import re
import socket
import urllib.request
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.cgroups import processes_in, remove_cgroups
from harness.daemon import free_port
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Cri, Pod, linux, refusal
from tests.e2e.lifecycle.conftest import PodMaker

pytestmark = pytest.mark.root


def sandbox_linux(**options: Any) -> pb.LinuxPodSandboxConfig:
    """A pod that shares namespaces of the node."""
    context = pb.LinuxSandboxSecurityContext(namespace_options=pb.NamespaceOption(**options))
    return pb.LinuxPodSandboxConfig(security_context=context)


def container_linux(**options: Any) -> pb.LinuxContainerConfig:
    return linux(namespace_options=pb.NamespaceOption(**options))


def test_status_echoes_what_was_asked(make_pod: PodMaker) -> None:
    labels, annotations = {"io.kubernetes.pod.uid": "1", "x": ""}, {"note": "ü\n" * 3}
    metadata = pb.PodSandboxMetadata(name="n", uid=str(uuid.uuid4()), namespace="ns", attempt=3)
    pod = make_pod(metadata=metadata, labels=labels, annotations=annotations)
    status = pod.status
    assert (status.id, status.metadata, status.state) == (pod.id, metadata, pb.SANDBOX_READY)
    assert (dict(status.labels), dict(status.annotations)) == (labels, annotations)
    assert status.created_at > 1e18
    assert re.fullmatch("[0-9a-f]{64}", pod.id), "the kubelet cuts a cgroup's name at its last dash"
    options = status.linux.namespaces.options
    assert (options.network, options.pid, options.ipc) == (pb.POD, pb.POD, pb.POD)
    pod.stop()
    assert pod.status.state == pb.SANDBOX_NOTREADY
    assert pod.status.metadata == metadata


def test_name_hosts_and_dns(make_pod: PodMaker) -> None:
    dns = pb.DNSConfig(
        servers=["10.9.8.7", "fd00::7"], searches=["a.example", "example"], options=["ndots:5"]
    )
    pod = make_pod(hostname="my-host", dns_config=dns)
    container = pod.start("sleep 100")
    assert container.tell("hostname") == "my-host"
    assert container.tell("cat /etc/hostname") == "my-host"
    assert container.tell("echo $HOSTNAME") == "my-host"
    assert container.tell("cat /etc/resolv.conf").splitlines() == [
        "search a.example example",
        "nameserver 10.9.8.7",
        "nameserver fd00::7",
        "options ndots:5",
    ]
    hosts = container.tell("cat /etc/hosts").splitlines()
    assert f"{pod.ip}\tmy-host" in hosts
    assert any(line.startswith("127.0.0.1\tlocalhost") for line in hosts)


def test_without_dns_the_nodes_is_taken_and_a_name_made(pod: Pod) -> None:
    container = pod.start("sleep 100")
    assert container.tell("cat /etc/resolv.conf") == Path("/etc/resolv.conf").read_text().strip()
    assert container.tell("hostname") == pod.id[:12]


def test_a_file_of_the_kubelet_replaces_the_pods(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("1.2.3.4 kubelet\n")
    mount = pb.Mount(container_path="/etc/hosts", host_path=str(tmp_path / "hosts"))
    container = pod.run("cat /etc/hosts", mounts=[mount])
    assert container.output == "1.2.3.4 kubelet"


def test_containers_of_a_pod_share_network_name_and_ipc_but_no_files(pod: Pod) -> None:
    server = pod.start("echo mine > /etc/mark; echo shared > /dev/shm/mark; nc -l -p 8080 -e cat; sleep 100")
    client = pod.start("sleep 100")
    wait_until(lambda: client.exec("netstat -tln | grep -q :8080").exit_code == 0, "the server")
    assert client.tell("echo hello | nc 127.0.0.1 8080") == "hello"
    assert client.tell("cat /dev/shm/mark") == "shared"
    assert client.exec("test -e /etc/mark").exit_code == 1
    for namespace in ("net", "ipc", "uts"):
        link = f"readlink /proc/self/ns/{namespace}"
        assert server.tell(link) == client.tell(link), namespace


def test_addresses(pod: Pod, make_pod: PodMaker) -> None:
    other = make_pod()
    network = pod.status.network
    addresses = pod.start("sleep 100").tell("ip -o addr show dev eth0")
    assert f"inet {network.ip}/" in addresses
    assert f"inet6 {network.additional_ips[0].ip}/" in addresses
    assert pod.ip != other.ip
    other.run(f"ping -c 1 -W 5 {pod.ip}")
    listener = pod.start("nc -l -p 80 -e echo reached")
    wait_until(lambda: listener.exec("netstat -tln | grep -q :80").exit_code == 0, "the listener")
    assert other.run(f"nc -w 5 {pod.ip} 80 </dev/null").output == "reached"


def test_a_host_port_is_reachable_on_loopback_until_the_pod_is_stopped(make_pod: PodMaker) -> None:
    port = free_port()
    mapping = pb.PortMapping(container_port=80, host_port=port, host_ip="127.0.0.1")
    pod = make_pod(port_mappings=[mapping, pb.PortMapping(container_port=81)])
    server = pod.start("echo it works > /index.html; exec busybox httpd -f -p 80 -h /")
    wait_until(lambda: server.exec("netstat -tln | grep -q :80").exit_code == 0, "the server")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert answer.read() == b"it works\n"
    pod.stop()
    with socket.socket() as probe:
        probe.settimeout(1)
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_host_port_that_is_taken_is_refused_and_leaves_nothing(cri: Cri, make_pod: PodMaker) -> None:
    mapping = pb.PortMapping(container_port=80, host_port=free_port())
    first = make_pod(port_mappings=[mapping])
    _, text = refusal(lambda: make_pod(port_mappings=[mapping]))
    assert str(mapping.host_port) in text
    assert cri.pods() == {first.id}


def test_the_hosts_network(make_pod: PodMaker) -> None:
    pod = make_pod(linux=sandbox_linux(network=pb.NODE), hostname="ignored")
    assert pod.ip == ""
    assert pod.status.linux.namespaces.options.network == pb.NODE
    container = pod.start("sleep 100", linux=container_linux(network=pb.NODE, pid=pb.CONTAINER))
    assert container.tell("readlink /proc/self/ns/net") == os.readlink("/proc/self/ns/net")
    assert container.tell("readlink /proc/self/ns/uts") == os.readlink("/proc/self/ns/uts")
    assert container.tell("hostname") == os.uname().nodename
    assert container.tell("cat /etc/hosts") == Path("/etc/hosts").read_text().strip()


def test_the_hosts_processes(make_pod: PodMaker) -> None:
    pod = make_pod(linux=sandbox_linux(pid=pb.NODE))
    container = pod.start("sleep 100", linux=container_linux(pid=pb.NODE))
    assert container.tell("readlink /proc/self/ns/pid") == os.readlink("/proc/self/ns/pid")
    assert container.tell(f"cat /proc/{os.getpid()}/comm") == Path("/proc/self/comm").read_text().strip()
    container.exec("sleep 5432 >/dev/null 2>&1 & exit 0")
    pod.remove()
    assert "sleep\x005432\x00" not in "".join(command_lines())


def command_lines() -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text(errors="replace"))
        except OSError:
            continue
    return lines


def test_the_hosts_ipc(make_pod: PodMaker, tmp_path: Path) -> None:
    pod = make_pod(linux=sandbox_linux(ipc=pb.NODE))
    container = pod.start("sleep 100", linux=container_linux(ipc=pb.NODE, pid=pb.CONTAINER))
    assert container.tell("readlink /proc/self/ns/ipc") == os.readlink("/proc/self/ns/ipc")
    mark = Path("/dev/shm") / f"phantom-test-{uuid.uuid4()}"
    try:
        container.tell(f"echo here > {mark}")
        assert mark.read_text() == "here\n"
    finally:
        mark.unlink(missing_ok=True)


def test_shared_pids(pod: Pod) -> None:
    """Pid 1 is the pod's own, and reaps what nobody waits for."""
    one = pod.start("sleep 6543", linux=container_linux(pid=pb.POD))
    two = pod.start("sleep 100", linux=container_linux(pid=pb.POD))
    assert two.tell("pgrep -f '^sleep 6543'")
    assert one.tell("readlink /proc/self/ns/pid") == two.tell("readlink /proc/self/ns/pid")
    assert "sleep" not in two.tell("cat /proc/1/comm")
    two.tell("(setsid sh -c 'exit 0' &) ; true")
    wait_until(lambda: "Z" not in two.tell("cat /proc/[0-9]*/stat | cut -d' ' -f3"), "zombies to be reaped")


def test_own_pids(pod: Pod) -> None:
    one, two = pod.start("sleep 100"), pod.start("sleep 100")
    assert one.tell("cat /proc/1/comm") == "sleep"
    assert one.tell("readlink /proc/self/ns/pid") != two.tell("readlink /proc/self/ns/pid")


def test_a_debugging_container_sees_its_targets_processes(pod: Pod) -> None:
    target = pod.start("exec sleep 7654")
    options = pb.NamespaceOption(pid=pb.TARGET, target_id=target.id)
    debugger = pod.start("sleep 100", linux=linux(namespace_options=options))
    assert debugger.tell("tr '\\0' ' ' < /proc/1/cmdline") == "sleep 7654"
    debugger.stop()
    assert target.status.state == pb.CONTAINER_RUNNING


def tracing(**options: Any) -> pb.LinuxContainerConfig:
    """What `kubectl debug --target` asks for."""
    capabilities = pb.Capability(add_capabilities=["SYS_PTRACE"])
    return linux(namespace_options=pb.NamespaceOption(**options), capabilities=capabilities)


def test_who_traces_a_target_in_the_pods_pid_namespace_is_refused(pod: Pod) -> None:
    """There the fragment is process 1, for those too who join it by naming a target."""
    shared = pod.start("sleep 100", linux=container_linux(pid=pb.POD))
    for asked in (tracing(pid=pb.POD), tracing(pid=pb.TARGET, target_id=shared.id)):
        code, text = refusal(partial(pod.create, "true", linux=asked))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "capabilities.add: 'SYS_PTRACE'" in text


def test_a_debugging_container_may_trace_its_target(pod: Pod) -> None:
    target = pod.start("echo own >/tmp/file; exec sleep 7654")
    debugger = pod.start("sleep 100", linux=tracing(pid=pb.TARGET, target_id=target.id))
    assert debugger.tell("cat /proc/1/root/tmp/file") == "own"
    again = pod.start("sleep 100", linux=tracing(pid=pb.TARGET, target_id=debugger.id))
    assert again.tell("cat /proc/1/root/tmp/file") == "own"


@pytest.mark.parametrize("target", ["created", "ended", "of another pod"])
def test_only_a_running_container_of_the_pod_is_a_target(pod: Pod, make_pod: PodMaker, target: str) -> None:
    containers = {
        "created": lambda: pod.create("true"),
        "ended": lambda: pod.run("true"),
        "of another pod": lambda: make_pod().start("sleep 100"),
    }
    options = pb.NamespaceOption(pid=pb.TARGET, target_id=containers[target]().id)
    code, text = refusal(lambda: pod.start("true", linux=linux(namespace_options=options)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "target_id" in text


def test_sysctls(make_pod: PodMaker) -> None:
    sysctls = {"net.ipv4.ip_local_port_range": "20000 30000", "kernel.shm_rmid_forced": "1"}
    pod = make_pod(linux=pb.LinuxPodSandboxConfig(sysctls=sysctls))
    container = pod.start("sleep 100")
    assert container.tell("cat /proc/sys/net/ipv4/ip_local_port_range").split() == ["20000", "30000"]
    assert container.tell("cat /proc/sys/kernel/shm_rmid_forced") == "1"
    assert container.exec("echo 0 > /proc/sys/kernel/shm_rmid_forced").exit_code != 0
    assert make_pod().start("sleep 100").tell("cat /proc/sys/kernel/shm_rmid_forced") == "0"


@pytest.mark.parametrize(
    "name", ["kernel.panic", "vm.overcommit_memory", "net.ipv4/../../vm.swappiness", "nonsense"]
)
def test_sysctls_of_the_node_are_refused(cri: Cri, make_pod: PodMaker, name: str) -> None:
    code, text = refusal(lambda: make_pod(linux=pb.LinuxPodSandboxConfig(sysctls={name: "1"})))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert name in text
    assert cri.pods() == set()


def test_the_cgroup_parent_that_is_given(make_pod: PodMaker) -> None:
    parent = f"/phantom-given-{uuid.uuid4().hex[:8]}"
    try:
        pod = make_pod(linux=pb.LinuxPodSandboxConfig(cgroup_parent=f"{parent}/burstable/pod1"))
        container = pod.start("sleep 100")
        assert len(processes_in(f"{parent}/burstable/pod1/{container.id}")) == 1
        pod.remove()
        assert processes_in(parent) == set()
    finally:
        remove_cgroups(parent)


def test_pods_are_found_by_id_state_and_labels(cri: Cri, make_pod: PodMaker) -> None:
    one, two = make_pod(labels={"app": "a", "tier": "x"}), make_pod(labels={"app": "a"})
    two.stop()
    assert cri.pods() == {one.id, two.id}
    assert cri.pods(id=one.id[:20]) == {one.id}
    assert cri.pods(id="not-there") == set()
    assert cri.pods(label_selector={"app": "a"}) == {one.id, two.id}
    assert cri.pods(label_selector={"app": "a", "tier": "x"}) == {one.id}
    assert cri.pods(label_selector={"app": ""}) == set()
    assert cri.pods(state=pb.PodSandboxStateValue(state=pb.SANDBOX_READY)) == {one.id}
    notready = pb.PodSandboxStateValue(state=pb.SANDBOX_NOTREADY)
    assert cri.pods(state=notready, label_selector={"app": "a"}) == {two.id}
    assert cri.pods(state=notready, id=one.id) == set()


def test_containers_are_found_by_id_pod_state_and_labels(cri: Cri, pod: Pod, make_pod: PodMaker) -> None:
    other = make_pod()
    created = pod.create("true", labels={"app": "a"})
    running = pod.start("sleep 100", labels={"app": "a", "tier": "x"})
    ended = other.run("true", labels={"app": "b"})
    states = {
        pb.CONTAINER_CREATED: created,
        pb.CONTAINER_RUNNING: running,
        pb.CONTAINER_EXITED: ended,
    }
    assert cri.containers() == {created.id, running.id, ended.id}
    for state, container in states.items():
        assert cri.containers(state=pb.ContainerStateValue(state=state)) == {container.id}
    assert cri.containers(pod_sandbox_id=pod.id) == {created.id, running.id}
    assert cri.containers(pod_sandbox_id=other.id[:20], id=ended.id[:20]) == {ended.id}
    assert cri.containers(label_selector={"app": "a", "tier": "x"}) == {running.id}
    assert cri.containers(pod_sandbox_id=other.id, label_selector={"app": "a"}) == set()


def test_a_unique_prefix_of_an_id_will_do(cri: Cri, pod: Pod) -> None:
    container = pod.start("sleep 100")
    status = pb.ContainerStatusRequest(container_id=container.id[:12])
    assert cri.runtime.ContainerStatus(status).status.id == container.id
    sandbox = pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id[:12])
    assert cri.runtime.PodSandboxStatus(sandbox).status.id == pod.id
    execute = pb.ExecSyncRequest(container_id=container.id[:12], cmd=["true"])
    assert cri.runtime.ExecSync(execute).exit_code == 0
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id[:12]))
    assert cri.pods() == set()


def test_stop_gives_back_address_and_processes_and_remove_the_rest(cri: Cri, pod: Pod) -> None:
    running, created = pod.start("sleep 100"), pod.create("true")
    pod.stop()
    pod.stop()
    assert running.status.state == pb.CONTAINER_EXITED
    assert running.status.exit_code == 137
    assert created.status.state in (pb.CONTAINER_CREATED, pb.CONTAINER_EXITED)
    assert pod.status.state == pb.SANDBOX_NOTREADY
    log = Path(pod.config.log_directory)
    pod.remove()
    pod.remove()
    assert (cri.pods(), cri.containers()) == (set(), set())
    assert list(log.iterdir()), "log files are the kubelet's to remove"
