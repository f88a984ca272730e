"""Streams and networks given as fds, terminals without a reader, limits, and execs that are kept."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.waiting import wait_until
from phantom_cri import codec, plans
from phantom_cri.errors import Internal, NotFound
from phantom_cri.fragments import Exit, FragmentClient, LaunchError, State
from phantom_cri.model import User
from phantom_cri.plans import ContainerSpec, Io, Limit, Namespaces, Process
from tests.e2e.launch.pod import USUAL, Pod, config, own_pids
from tests.e2e.native.raw import LIBC

pytestmark = pytest.mark.root

FOREVER = "echo ready; exec sleep 1000"


def made(pod: Pod, script: str, *, process: dict[str, Any] | None = None, **fields: Any) -> ContainerSpec:
    """A container as CRI has it, but for these fields of its spec or its process."""
    spec = pod.request("a", config(script, security=own_pids()))
    return codec.replace(spec, process=codec.replace(spec.process, **(process or {})), **fields)


async def ready(pod: Pod, spec: ContainerSpec, **more: Any) -> None:
    await pod.start("a", spec, **more)
    wait_until(lambda: pod.log("a"), "the container to be ready")


# ---- streams


async def test_given_streams(pod: Pod) -> None:
    """A round trip through what a caller's fifos would be; the log stays empty, and nobody can attach."""
    (stdin, ours_in), (ours_out, stdout), (ours_err, stderr) = (os.pipe2(os.O_CLOEXEC) for _ in range(3))
    spec = made(pod, "cat; echo bad >&2; id -u", user=User(uid=1000, gid=1000), io=Io("given"))
    await pod.start("a", spec, lent={"stdin": stdin, "stdout": stdout, "stderr": stderr})
    for fd in (stdin, stdout, stderr):
        os.close(fd)
    with pytest.raises(NotFound):
        await pod.fragment.attach("a", stdout=ours_in)
    os.write(ours_in, b"there and back\n")
    os.close(ours_in)
    assert (await pod.wait("a")).code == 0
    for fd, said in ((ours_out, b"there and back\n1000\n"), (ours_err, b"bad\n")):
        assert os.read(fd, 100) == said
        assert os.read(fd, 100) == b""  # nobody else holds the other end
        os.close(fd)
    assert pod.log("a") == []


async def test_streams_that_are_not_given_are_null(pod: Pod) -> None:
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    script = "cat; exec ls -l /proc/self/fd >&2"
    await pod.start("a", made(pod, script, io=Io("given")), lent={"stderr": theirs})
    os.close(theirs)
    await pod.wait("a")
    said = os.read(ours, 1000).decode()
    assert [line.split()[-3:] for line in said.splitlines() if "null" in line] == [["0", "->", "/dev/null"]]
    assert "1 -> pipe:" in said and "2 -> pipe:" in said
    os.close(ours)


async def test_a_console_is_its_owners_alone(pod: Pod) -> None:
    script = "tty; read x; echo got $x; read y; exit 4"
    started = await pod.start("a", made(pod, script, io=Io("console")))
    os.set_blocking(started.console, True)
    assert os.read(started.console, 100) == b"/dev/pts/0\r\n"
    os.close(started.console)
    pod.forget_fd(started.console)
    entry = await pod.fragment.get("a")  # who comes back, as after a crash
    os.write(entry.console, b"words\n")
    said = b""
    while b"got words" not in said:
        said += os.read(entry.console, 100)
    os.write(entry.console, b"\n")
    assert (await pod.wait("a")).code == 4
    assert pod.log("a") == []
    for fd in (entry.console, entry.pidfd):
        os.close(fd)


async def test_a_terminal_is_read_by_the_fragment(pod: Pod) -> None:
    assert (await pod.run("a", made(pod, "tty", io=Io("terminal"))))[1] == ["/dev/pts/0"]


# ---- networks


def network() -> int:
    """A new network namespace that no process is in."""
    found: list[int] = []

    def unshare() -> None:
        if LIBC.unshare(plans.CLONE_NEWNET) < 0:
            raise OSError(errno.EPERM, "unshare")
        found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=unshare)
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def other_network() -> Iterator[int]:
    fd = network()
    yield fd
    os.close(fd)


def named(fd: int) -> str:
    return f"net:[{os.fstat(fd).st_ino}]"


async def test_a_given_network(pod: Pod, other_network: int) -> None:
    """For the container, its /sys and its execs; the pod's fragment stays where it is."""
    before = os.readlink(f"/proc/{pod.spawned.process.pid}/ns/net")
    assert before != named(other_network)
    spec = made(pod, FOREVER, namespaces=Namespaces("own", network="given"))
    assert not plans.wants_template(spec)
    await ready(pod, spec, lent={"network": other_network})
    command = ("sh", "-c", "readlink /proc/self/ns/net; ls /sys/class/net; cat /proc/net/dev | wc -l")
    _, said = await pod.exec("a", *command, own_network=True, own_pid_namespace=True)
    assert said.splitlines() == [named(other_network), "lo", "3"]
    _, said = await pod.exec("a", *command, own_pid_namespace=True)
    assert said.splitlines()[0] == before
    assert os.readlink(f"/proc/{pod.spawned.process.pid}/ns/net") == before


async def test_the_hosts_network(pod: Pod) -> None:
    host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    spec = made(pod, "readlink /proc/self/ns/net; ls /sys/class/net", namespaces=Namespaces(network="host"))
    before = set(os.listdir("/sys/class/net"))
    await pod.start("a", spec, lent={"host_network": host})
    assert (await pod.wait("a")).code == 0
    there = before & set(os.listdir("/sys/class/net"))  # all the time
    first, *links = pod.log("a")
    assert first == named(host)
    assert there <= set(links)
    os.close(host)


@pytest.mark.parametrize(("network", "name"), [("given", "network"), ("host", "host_network")])
async def test_a_network_that_did_not_come_along(pod: Pod, network: Any, name: str) -> None:
    with pytest.raises(Internal, match=f"the plan needs fd '{name}'"):
        await pod.start("a", made(pod, "true", namespaces=Namespaces(network=network)))


async def test_a_given_network_that_is_none(pod: Pod, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC)
    spec = made(pod, "true", namespaces=Namespaces(network="given"))
    with pytest.raises(LaunchError, match=r"op \d+, join net namespace of network: EINVAL"):
        await pod.start("a", spec, lent={"network": fd})
    os.close(fd)
    assert await pod.fragment.list_processes() == []


# ---- limits

LIMITS = "umask; ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -Hl"
LIMITED = {
    "umask": 0o027,
    "rlimits": (
        Limit(resource.RLIMIT_NOFILE, 77, 99),
        Limit(resource.RLIMIT_CORE, 0, 0),
        Limit(resource.RLIMIT_MEMLOCK, 1 << 15, 1 << 16),
    ),
}
SEEN = ["0027", "77", "99", "0", "64"]


async def test_limits_of_a_container(pod: Pod) -> None:
    assert (await pod.run("a", made(pod, LIMITS, process=LIMITED)))[1] == SEEN


async def test_a_small_limit_of_files_is_no_obstacle(pod: Pod) -> None:
    """Of few enough that nothing but its own libraries can be opened, one after the other."""
    process = {"rlimits": (Limit(resource.RLIMIT_NOFILE, 4, 4),)}
    assert (await pod.run("a", made(pod, "ulimit -Sn", process=process)))[1] == ["4"]


@pytest.mark.kernel("cap_sys_resource")
async def test_a_hard_limit_is_raised(pod: Pod) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("limit: this test runs without one on locked memory")
    process = {"rlimits": (Limit(resource.RLIMIT_MEMLOCK, hard, hard + 1024),)}
    assert (await pod.run("a", made(pod, "ulimit -Hl", process=process)))[1] == [str(hard // 1024 + 1)]


async def test_limits_of_an_exec_are_its_own(pod: Pod) -> None:
    await ready(pod, made(pod, FOREVER))
    command = ("sh", "-c", LIMITS)
    process = Process(command, ("PATH=/usr/bin:/bin",), "/", **LIMITED)  # type: ignore[arg-type]
    _, said = await pod.exec("a", *command, process=process)
    assert said.split() == SEEN
    _, said = await pod.exec("a", "sh", "-c", "umask")
    assert said == "0022\n"


async def test_limits_that_are_none(pod: Pod) -> None:
    process = {"rlimits": (Limit(resource.RLIMIT_NOFILE, 9, 8),)}
    with pytest.raises(LaunchError, match=r"op \d+, set RLIMIT_NOFILE to 9:8: EINVAL"):
        await pod.start("a", made(pod, "true", process=process))
    assert await pod.fragment.list_processes() == []


# ---- execs

TASK = "t" * 76
EXEC = f"{TASK}/{'e' * 83}"


async def start_exec(pod: Pod, exec_id: str, script: str, **fields: Any) -> None:
    process = Process(("sh", "-c", script), ("PATH=/usr/bin:/bin",), "/")
    launch = plans.ExecLaunch(exec_id.split("/")[0], process, User(), USUAL, own_pid_namespace=True, **fields)
    started = await pod.fragment.start(exec_id, plans.exec_plan(launch, ()))
    os.close(started.pidfd)


async def test_an_exec_is_kept_until_it_is_forgotten(pod: Pod) -> None:
    """Under the longest ids that there are, and for a client that was not there when it ended."""
    assert len(EXEC) == 160
    await pod.start(TASK, pod.request(TASK, config("exec sleep 1000", security=own_pids())))
    await start_exec(pod, EXEC, "exit 5", keep=True)
    await start_exec(pod, f"{TASK}/plain", "exit 6")
    assert (await pod.wait(EXEC)).code == 5
    assert (await pod.wait(f"{TASK}/plain")).code == 6
    late = pod.connect()
    await late.hello()
    assert await ended(late) == {EXEC: 5}
    with pytest.raises(NotFound):
        await late.get(f"{TASK}/plain")
    for _ in range(2):
        await late.forget(EXEC)
    assert await ended(late) == {}
    late.close()
    assert not (pod.folder / "exits").exists()
    await start_exec(pod, EXEC, "exit 7", keep=True)  # the id is free again
    await pod.fragment.signal(TASK, 9)
    assert (await pod.wait(TASK)).code == 137


async def test_the_terminal_of_a_kept_exec_is_there_again(pod: Pod) -> None:
    await ready(pod, made(pod, FOREVER))
    process = Process(("sh", "-c", "read x; echo got $x; exit 3"), ("PATH=/usr/bin:/bin",), "/")
    launch = plans.ExecLaunch("a", process, User(), USUAL, own_pid_namespace=True, tty=True, keep=True)
    started = await pod.fragment.start("a/e", plans.exec_plan(launch, ()))
    for fd in (started.console, started.pidfd):
        os.close(fd)
    entry = await pod.fragment.get("a/e")
    os.set_blocking(entry.console, True)
    os.write(entry.console, b"words\n")
    said = b""
    while b"got words" not in said:
        said += os.read(entry.console, 100)
    assert (await pod.wait("a/e")).code == 3
    for fd in (entry.console, entry.pidfd):
        os.close(fd)
    assert await ended(pod.fragment) == {"a/e": 3}


async def ended(fragment: FragmentClient) -> dict[str, int]:
    found: dict[str, Exit] = {}
    for entry in await fragment.list_processes():
        if entry.state == State.EXITED:
            found[entry.process_id] = entry.exit
        for fd in (entry.pidfd, entry.console):
            if fd >= 0:
                os.close(fd)
    return {name: exit.code for name, exit in found.items()}
