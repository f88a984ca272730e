"""What belongs to a pod's user namespace, and what becomes of such a pod."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import grpc
import pytest

from harness.daemon import Daemon
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.api.phantom.v1 import node_pb2
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Cri, Pod, refusal
from tests.e2e.lifecycle.conftest import PodMaker, warmed_up
from tests.e2e.streaming.client import StreamClient
from tests.e2e.userns.conftest import FIRST, Sleeper, host_pid, inside, sandbox, user_namespace

pytestmark = [pytest.mark.root, pytest.mark.kernel("user_namespaces")]

ALL = pb.Capability(add_capabilities=["ALL"])
UNCONFINED = pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined)


def owner_of_namespace(pid: int, kind: str) -> str:
    """The user namespace that owns one of a process's namespaces (NS_GET_USERNS, ioctl_nsfs(2))."""
    listed = subprocess.run(
        ["lsns", "-p", str(pid), "-t", kind, "-n", "-o", "ONS"], capture_output=True, text=True, check=True
    )
    return listed.stdout.strip()


@pytest.mark.parametrize("kind", ["net", "ipc", "uts", "mnt"])
def test_namespaces_belong_to_it(sleeper: Sleeper, kind: str) -> None:
    pid = host_pid(sleeper())
    assert f"user:[{owner_of_namespace(pid, kind)}]" == os.readlink(f"/proc/{pid}/ns/user")


def test_the_root_inside_rules_its_namespaces(sleeper: Sleeper) -> None:
    container = sleeper(capabilities=ALL, seccomp=UNCONFINED, readonly_paths=[], masked_paths=[])
    for script in (
        "ip link add extra type bridge && ip link set extra up",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo 7000 > /proc/sys/kernel/msgmax",
        "hostname other && hostname",
        "mount -t tmpfs none /home && touch /home/x",
        "mount -t mqueue none /tmp && touch /tmp/x",
        "unshare -Ur true",
    ):
        container.tell(script)


def test_a_container_within(sleeper: Sleeper) -> None:
    """With procMount Unmasked: a pid namespace and a procfs of its own, as an engine in a container makes."""
    container = sleeper(capabilities=ALL, seccomp=UNCONFINED, readonly_paths=[], masked_paths=[])
    nested = "mount -t proc proc /proc && cat /proc/1/comm && ls -d /proc/[0-9]* | wc -l"
    assert container.tell(f"unshare -m -p -f sh -c '{nested}'").split()[0] == "sh"
    assert container.tell(f"unshare -U -r -m -p -f sh -c '{nested}'").split()[0] == "sh"


def test_its_network_works(user_pod: Pod, sleeper: Sleeper) -> None:
    container = sleeper()
    gateway = container.tell("ip route").split()[2]
    container.tell(f"ping -c 1 -W 5 {gateway}")
    server = user_pod.start("nc -l -p 80 -e echo hello", linux=inside(run_as_user=pb.Int64Value(value=1000)))
    wait_until(lambda: ":0050" in server.tell("cat /proc/net/tcp /proc/net/tcp6"), "a listening server")
    with socket.create_connection((user_pod.ip, 80), timeout=5) as connection:
        assert connection.recv(16).strip() == b"hello"


def test_sysctls_and_names(make_pod: PodMaker) -> None:
    wanted = {
        "kernel.shm_rmid_forced": "1",
        "fs.mqueue.msg_max": "100",
        "kernel.msgmax": "9000",
        "net.ipv4.ip_forward": "1",
    }
    config = sandbox(user_namespace())
    config.sysctls.update(wanted)
    container = make_pod(linux=config, hostname="named").start("sleep 100", linux=inside())
    for name, value in wanted.items():
        assert container.tell(f"cat /proc/sys/{name.replace('.', '/')}") == value
    assert container.tell("hostname; cat /etc/hostname").split() == ["named", "named"]
    assert container.tell("cat /proc/sys/net/ipv4/ping_group_range").split() == ["0", "65535"]


def test_containers_share_the_pods_ipc_and_memory(user_pod: Pod, sleeper: Sleeper) -> None:
    first, second = sleeper(), sleeper(run_as_user=pb.Int64Value(value=1000))
    first.tell("echo there > /dev/shm/x; touch /dev/mqueue/q")
    assert second.tell("cat /dev/shm/x; ls /dev/mqueue").split() == ["there", "q"]
    assert host_pid(first) != host_pid(second)


def test_a_shared_pid_namespace(make_pod: PodMaker) -> None:
    pod = make_pod(linux=sandbox(user_namespace(), pid=pb.POD))
    first = pod.start("sleep 1234", linux=inside(pid=pb.POD))
    second = pod.start("sleep 100", linux=inside(pid=pb.POD, capabilities=ALL))
    assert "sleep 1234" in second.tell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    second.tell("kill $(pidof sleep | tr ' ' '\\n' | sort -n | head -n 1)")
    assert first.wait_exited().exit_code in (143, 137, 0)


def test_it_starts_cold_and_says_why(cri: Cri, user_pod: Pod, pod: Pod) -> None:
    answer = cri.node.ListPodStarts(node_pb2.ListPodStartsRequest())
    starts = {start.pod_sandbox_id: start for start in answer.pods}
    assert starts[user_pod.id].cold_reason == "user_namespace"
    assert not starts[pod.id].cold_reason, "others have their warm fragments"


def test_execs_are_inside(sleeper: Sleeper) -> None:
    container = sleeper(run_as_user=pb.Int64Value(value=5))
    answer = container.exec("id -u; readlink /proc/self/ns/user; echo e > /dev/stderr")
    assert answer.stdout.decode().split() == ["5", os.readlink(f"/proc/{host_pid(container)}/ns/user")]
    assert answer.stderr == b"e\n"
    assert container.exec("kill -9 $$").exit_code == 137


def test_a_daemon_that_is_killed(make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path) -> None:
    daemon = make_daemon({"pools": [{"name": "default", "size": 0}]}).start()
    cri = Cri(daemon.endpoint)
    cri.pull(busybox_image)
    before = warmed_up(daemon, cri)
    pod = cri.pod(tmp_path, linux=sandbox(user_namespace())).run_sandbox()
    old = pod.start("sleep 1000", linux=inside())
    daemon.kill()
    daemon.start()
    cri.wait_served()
    new = pod.start("sleep 1000", linux=inside())
    namespaces = {
        os.readlink(f"/proc/{host_pid(one)}/ns/{kind}") for one in (old, new) for kind in ("user", "net")
    }
    assert len(namespaces) == 2, "both are in the same"
    for container in (old, new):
        assert container.tell("id -u; cat /proc/self/uid_map").split()[:3] == ["0", "0", str(FIRST)]
    pod.remove()
    daemon.wait_for_no_traces(before)
    cri.close()


@pytest.mark.parametrize("kind", ["spdy", "websocket"])
def test_streams(node: Daemon, sleeper: Sleeper, kind: str) -> None:
    container = sleeper(run_as_user=pb.Int64Value(value=1000))
    client = StreamClient(node.endpoint, kind)
    assert client.run("exec", "-i", container.id, "cat", given=b"hi\n").stdout == b"hi\n"
    with client.terminal("exec", container.id, "sh") as running:
        running.write(b"stat -c %u:%g $(tty); exit\n")
        assert b"1000:5\r\n" in running.rest()


def test_a_node_that_cannot(make_daemon: DaemonMaker, tmp_path: Path) -> None:
    """Its images lie on a file system whose ids cannot be mapped: that is found out, told, and refused."""
    daemon = make_daemon({"pools": [{"name": "default", "size": 0}]})
    daemon.root.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", str(daemon.root)], check=True)
    cri = Cri(daemon.start().endpoint)
    handler, _ = cri.runtime.Status(pb.StatusRequest()).runtime_handlers
    assert not handler.features.user_namespaces
    code, text = refusal(lambda: cri.pod(tmp_path, linux=sandbox(user_namespace())).run_sandbox())
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "userns_options: no user namespaces on this node" in text and "EINVAL" in text
    cri.pod(tmp_path).run_sandbox().remove()
    assert not list((daemon.root / "containers").glob("[0-9a-f]*"))
    assert not list((daemon.state / "pods").glob("*/"))
    cri.close()
