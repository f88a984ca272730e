"""Many pods, several at once: afterwards the node is as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from harness.daemon import Daemon, free_port
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Cri, Pod, limited, linux
from tests.e2e.lifecycle.conftest import warmed_up

pytestmark = pytest.mark.root

AT_ONCE = 8


def plain(pod: Pod) -> None:
    container = pod.start("echo hello; sleep 100")
    assert container.exec("echo x").stdout == b"x\n"
    container.stop()
    container.remove()
    pod.stop()


def with_everything(pod: Pod) -> None:
    """Limits, mounts, shared pids, an exit by itself, an exec that is left behind: removed in one go."""
    folder = Path(pod.config.log_directory)
    made = limited(memory_limit_in_bytes=64 << 20, cpu_shares=512)
    made.security_context.readonly_rootfs = True
    pod.start("sleep 100", linux=made, mounts=[pb.Mount(container_path="/data", host_path=str(folder))])
    shared = pod.start("sleep 100 & sleep 101", linux=linux(namespace_options=pb.NamespaceOption(pid=pb.POD)))
    shared.exec("sleep 102 >/dev/null 2>&1 & exit 0")
    assert pod.run("exit 3").status.exit_code == 3


def never_started(pod: Pod) -> None:
    pod.create("true")
    pod.stop()


def out_of_memory(pod: Pod) -> None:
    container = pod.run("tail /dev/zero", linux=limited(memory_limit_in_bytes=8 << 20))
    assert container.status.reason == "OOMKilled"


KINDS = (plain, with_everything, plain, never_started, plain, out_of_memory, plain, plain)


def host_ports(number: int) -> list[pb.PortMapping]:
    return [pb.PortMapping(container_port=80, host_port=free_port(), host_ip="127.0.0.1")] * (number % 5 == 0)


@pytest.mark.parametrize("cycles", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_pod_cycles_leave_the_node_as_it_was(
    make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path, cycles: int
) -> None:
    daemon = make_daemon({"pools": [{"name": "default", "size": 8}]})
    few_addresses(daemon)
    with closing(Cri(daemon.start().endpoint)) as cri:
        cri.pull(busybox_image)
        before = warmed_up(daemon, cri)

        def cycle(number: int) -> None:
            pod = cri.pod(tmp_path, port_mappings=host_ports(number)).run_sandbox()
            KINDS[number % len(KINDS)](pod)
            pod.remove()

        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(cycle, range(cycles)))
        assert cri.pods() == cri.containers() == set()
        daemon.wait_for_no_traces(before)


def few_addresses(daemon: Daemon) -> None:
    """62 of them: fewer than there will be pods, so that each has to be given back."""
    network = daemon.config["network"]
    network["subnets"] = [network["subnets"][0].replace("/20", "/26")]
