"""Packets through Debian's CNI plugins, from a real daemon's pods."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.daemon import free_port
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.api.phantom.v1 import node_pb2
from tests.e2e.cni.node import CniNode, fetch
from tests.e2e.lifecycle.client import Cri, Pod
from tests.e2e.userns.conftest import inside, sandbox, user_namespace

pytestmark = pytest.mark.root

SERVER = "mkdir /www && echo hello from $HOSTNAME >/www/index.html && exec httpd -f -p 80 -h /www"


class Shared:
    def __init__(self, node: CniNode, cri: Cri) -> None:
        self.node, self.cri = node, cri

    def pod(self, **fields: Any) -> Pod:
        return self.cri.pod(self.node.daemon.folder / "logs", **fields).run_sandbox()

    def server(self, **fields: Any) -> Pod:
        pod = self.pod(**fields)
        pod.start(SERVER)
        wait_until(lambda: serves(pod.ip, 80), f"{pod.ip} to serve")
        return pod

    def starts(self, pod: Pod) -> node_pb2.PodStart:
        start: node_pb2.PodStart = self.cri.node.ListPodStarts(
            node_pb2.ListPodStartsRequest(pod_sandbox_id=pod.id)
        ).pods[0]
        return start


def serves(address: str, port: int) -> bool:
    try:
        return fetch(address, port).startswith("hello from")
    except OSError:
        return False


@pytest.fixture(scope="module")
def module_node(busybox_image: str) -> Iterator[Shared]:
    node = CniNode(Path(tempfile.mkdtemp(prefix="pf-")))
    node.configure(node.chain())
    with node.daemon:
        cri = node.cri()
        cri.pull(busybox_image)
        cri.wait_pools_full()
        yield Shared(node, cri)
        node.daemon.stop()
        assert node.traces() == dict.fromkeys(node.traces(), 0), "something was left behind"
        cri.close()


@pytest.fixture
def shared(module_node: Shared, request: pytest.FixtureRequest) -> Iterator[Shared]:
    request.node.daemons = [module_node.node.daemon]
    yield module_node
    module_node.cri.remove_pods()
    module_node.cri.wait_pools_full()


def test_the_host_and_other_pods_reach_a_pod_on_both_versions(shared: Shared) -> None:
    pod, other = shared.server(), shared.pod()
    addresses = [pod.ip, *(extra.ip for extra in pod.status.network.additional_ips)]
    assert [":" in address for address in addresses] == [False, True]
    caller = other.start("sleep 1000")
    for address in addresses:
        assert fetch(address, 80) == f"hello from {pod.id[:12]}\n"
        literal = f"[{address}]" if ":" in address else address
        assert caller.tell(f"wget -qO- http://{literal}/") == f"hello from {pod.id[:12]}"
        assert caller.exec("ping", "-c1", "-W3", address).exit_code == 0
    assert caller.exec("ping", "-c1", "-W3", "127.0.0.1").exit_code == 0, "lo is down"
    assert caller.exec("ping", "-6", "-c1", "-W3", "::1").exit_code == 0


def test_a_pod_has_what_the_result_says(shared: Shared) -> None:
    pod = shared.pod()
    container = pod.start("sleep 1000")
    seen = container.tell("ip addr show eth0")
    for address in (pod.ip, pod.status.network.additional_ips[0].ip):
        assert f" {address}/" in seen
        assert address in container.tell("cat /etc/hosts")
    assert "default via" in container.tell("ip route") and "default via" in container.tell("ip -6 route")


def test_a_pool_member_is_attached_before_its_pod_is_known(shared: Shared) -> None:
    held = shared.node.addresses()
    pod = shared.pod()
    start = shared.starts(pod)
    assert start.warm, start
    assert pod.ip in held, "the address was there before the pod"
    network = next(stage.duration for stage in start.stages if stage.name == "run network")
    assert network < 5_000_000, "no plugin can have been called in this time"


def test_a_host_port_by_the_portmap_plugin(shared: Shared) -> None:
    held, port = shared.node.addresses(), free_port()
    gateway = host_address(shared.node)
    pod = shared.server(
        port_mappings=[pb.PortMapping(container_port=80, host_port=port), pb.PortMapping(container_port=81)]
    )
    assert fetch(gateway, port) == f"hello from {pod.id[:12]}\n"
    assert shared.starts(pod).warm
    assert pod.ip in held, "telling the last plugins more has not cost the address"
    assert sum("CNI-HOSTPORT-DNAT" in rule for rule in shared.node.rules()) == 2  # IPv4, IPv6
    pod.stop()
    assert not serves(gateway, port)
    assert not any("CNI-HOSTPORT-DNAT" in rule for rule in shared.node.rules())


def host_address(node: CniNode) -> str:
    shown = subprocess.run(["ip", "-j", "-4", "addr", "show", node.name], capture_output=True, check=True)
    address: str = json.loads(shown.stdout)[0]["addr_info"][0]["local"]
    return address


def test_bandwidth_is_what_the_annotations_say(shared: Shared) -> None:
    limits = {"kubernetes.io/ingress-bandwidth": "8M", "kubernetes.io/egress-bandwidth": "0.016G"}
    before = shapers()
    pod = shared.pod(annotations=limits)
    assert sorted(shapers() - before) == [1_000_000, 2_000_000], "bytes per second: into the pod, out of it"
    pod.remove()
    wait_until(lambda: shapers() == before, "the pod's shapers to go")


def shapers() -> set[int]:
    shown = subprocess.run(["tc", "-j", "qdisc", "show"], capture_output=True, check=True)
    return {entry["options"]["rate"] for entry in json.loads(shown.stdout) if entry.get("kind") == "tbf"}


@pytest.mark.kernel("user_namespaces")
def test_a_pod_with_users_of_its_own_is_attached_too(shared: Shared) -> None:
    """Its network namespace belongs to its user namespace; the plugins get into it all the same."""
    users = user_namespace()
    pod = shared.pod(linux=sandbox(users))
    pod.start(SERVER, linux=inside(users))
    wait_until(lambda: serves(pod.ip, 80), f"{pod.ip} to serve")
    assert not shared.starts(pod).warm
    pod.remove()


def test_stopping_gives_the_address_back_and_can_be_repeated(shared: Shared) -> None:
    pod = shared.pod()
    assert pod.ip in shared.node.addresses()
    address = pod.ip
    pod.stop()
    assert address not in shared.node.addresses()
    pod.stop()
    pod.remove()


def test_fifty_pods_at_once_leave_nothing(shared: Shared) -> None:
    requests = [shared.cri.pod(shared.node.daemon.folder / "logs").config for _ in range(50)]
    calls = [
        shared.cri.runtime.RunPodSandbox.future(pb.RunPodSandboxRequest(config=config), timeout=60)
        for config in requests
    ]
    pods = [call.result().pod_sandbox_id for call in calls]
    ips = {Pod(shared.cri, config, pod).ip for config, pod in zip(requests, pods, strict=True)}
    assert len(ips) == 50
    stops = [
        shared.cri.runtime.RemovePodSandbox.future(pb.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=60)
        for pod in pods
    ]
    for stop in stops:
        stop.result()
    shared.cri.wait_pools_full()
    wait_until(lambda: len(shared.node.links()) == 2, "the links of all but the pool's two to go")
    assert len(shared.node.addresses()) == 4 and len(shared.node.attachments()) == 2
    assert not ips & shared.node.addresses()
