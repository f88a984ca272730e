"""Which pods get a warm fragment, why others do not, and what becomes of fragments that die in the pool."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness.daemon import Daemon, free_port
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.api.phantom.v1 import node_pb2
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Cri, Pod

pytestmark = pytest.mark.root

POOLS = [
    {"name": "default", "size": 2},
    {"name": "none", "size": 0},
    {"name": "pids", "size": 1, "namespaces": {"host_pid": True}},
]
HANDLERS = [{"name": "", "pools": ["default"]}, {"name": "none", "pools": ["none"]}, {"name": "pids"}]


@pytest.fixture
def daemon(make_daemon: DaemonMaker) -> Daemon:
    return make_daemon({"pools": POOLS, "handlers": HANDLERS}).start()


@pytest.fixture
def cri(daemon: Daemon, busybox_image: str) -> Iterator[Cri]:
    with closing(Cri(daemon.endpoint)) as client:
        client.pull(busybox_image)
        client.wait_pools_full()
        yield client


def start_of(pod: Pod) -> tuple[str, bool, str]:
    """Pool, whether it was warm, and why not."""
    (told,) = pod.cri.node.ListPodStarts(node_pb2.ListPodStartsRequest(pod_sandbox_id=pod.id)).pods
    return told.pool, told.warm, told.cold_reason


def shared(**options: Any) -> pb.LinuxPodSandboxConfig:
    context = pb.LinuxSandboxSecurityContext(namespace_options=pb.NamespaceOption(**options))
    return pb.LinuxPodSandboxConfig(security_context=context)


def test_what_is_the_pods_own_keeps_it_warm(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    pod = cri.pod(
        tmp_path,
        hostname="own",
        dns_config=pb.DNSConfig(servers=["10.0.0.1"]),
        labels={"a": "b"},
        port_mappings=[pb.PortMapping(container_port=80, host_port=free_port())],
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=f"{daemon.cgroup}/of/its/own",
            sysctls={"net.ipv4.ip_unprivileged_port_start": "80"},
            security_context=pb.LinuxSandboxSecurityContext(privileged=True),
        ),
    ).run_sandbox()
    assert start_of(pod) == ("default", True, "")


def test_namespaces_of_the_node_need_another_birth(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    reasons = {
        "host_network": shared(network=pb.NODE),
        "host_pid": shared(pid=pb.NODE),
        "host_network+host_ipc": shared(network=pb.NODE, ipc=pb.NODE),
    }
    for reason, linux in reasons.items():
        assert start_of(cri.pod(tmp_path, linux=linux).run_sandbox()) == ("", False, reason)
        counted = rf'^phantom_pool_cold_starts_total{{reason="{re.escape(reason)}"}} 1\.0$'
        assert re.search(counted, daemon.metrics(), re.MULTILINE)
    pod = cri.pod(tmp_path, linux=shared(pid=pb.NODE)).run_sandbox("pids")
    assert start_of(pod) == ("pids", True, "")


def test_an_empty_pool_is_a_reason_too(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    assert start_of(cri.pod(tmp_path).run_sandbox("none")) == ("", False, "pool_disabled")
    starts = [start_of(cri.pod(tmp_path).run_sandbox()) for _ in range(8)]
    assert ("default", True, "") in starts
    assert ("", False, "pool_empty") in starts
    cri.wait_pools_full()
    assert start_of(cri.pod(tmp_path).run_sandbox()) == ("default", True, "")


def test_a_fragment_that_dies_in_the_pool_is_nobodys(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    for path in (daemon.state / "pods").glob("*/fragment.json"):
        os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)
    pods = [cri.pod(tmp_path).run_sandbox() for _ in range(3)]
    assert [pod.run("echo well").output for pod in pods] == ["well"] * 3
    cri.remove_pods()
    cri.wait_pools_full()
    wait_until(lambda: len(list((daemon.state / "pods").glob("*/"))) == 3, "the dead ones' folders to go")


def test_the_handlers_that_need_no_configuration(
    make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path
) -> None:
    daemon = make_daemon({"pools": [{"name": "default", "size": 3}]}).start()
    with closing(Cri(daemon.endpoint)) as cri:
        cri.wait_pools_full()
        status = cri.runtime.Status(pb.StatusRequest())
        assert [handler.name for handler in status.runtime_handlers] == ["", "phantom"]
        pods = [cri.pod(tmp_path).run_sandbox(handler) for handler in ("", "phantom")]
        assert [start_of(pod) for pod in pods] == [("default", True, "")] * 2
        assert pods[1].status.runtime_handler == "phantom"
