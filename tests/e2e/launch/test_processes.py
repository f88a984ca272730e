"""Execs, signals, pid namespaces, consoles: what happens to processes once they run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from harness.waiting import wait_until
from phantom_cri import fragments, plans, requests
from phantom_cri.cgroups import Cgroups
from phantom_cri.errors import AlreadyExists, NotFound
from phantom_cri.fragments import Exit, Phase, State
from phantom_cri.model import NamespaceOptions, User
from phantom_cri.plans import KIND_CONTAINER
from tests.e2e.launch.pod import IMAGE, USUAL_CAPABILITIES, Pod, config, own_pids, running_pod

pytestmark = pytest.mark.root

FOREVER = "echo ready; trap 'exit 7' TERM; while :; do sleep 0.01; done"


async def ready(pod: Pod, container_id: str, **fields: object) -> fragments.Started:
    started = await pod.start(container_id, config(FOREVER, **fields))  # type: ignore[arg-type]
    wait_until(lambda: pod.log(container_id), f"container {container_id} to be ready")
    return started


# ---- exec


async def test_exec_is_in_the_container(pod: Pod) -> None:
    await ready(pod, "a", security=own_pids())
    await pod.exec("a", "sh", "-c", "echo x > /made")
    code, output = await pod.exec("a", "sh", "-c", "cat /made; hostname; exit 4", own_pid_namespace=True)
    assert (code, output) == (4, "x\npod\n")
    code, output = await pod.exec("a", "cat", "/proc/1/comm", own_pid_namespace=True)
    assert output == "sh\n"


async def test_exec_has_the_containers_credentials(pod: Pod) -> None:
    await ready(pod, "a")
    user = User(uid=1000, gid=1001, groups=(1001, 1234))
    _, output = await pod.exec("a", "sh", "-c", "id -u; id -G; grep CapBnd /proc/self/status", user=user)
    assert output == f"1000\n1001 1234\nCapBnd:\t{USUAL_CAPABILITIES:016x}\n"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("nothing", 'exec: "nothing": executable file not found in $PATH'),
        ("/no/thing", 'exec: "/no/thing": no such file or directory'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
        ("/etc", 'exec: "/etc": permission denied'),
        ("/etc/passwd/x", 'exec: "/etc/passwd/x": not a directory'),
    ],
)
async def test_exec_of_what_cannot_be_executed(pod: Pod, command: str, text: str) -> None:
    await ready(pod, "a")
    with pytest.raises(fragments.ExecError) as refused:
        await pod.exec("a", command)
    assert str(refused.value) == text
    assert [entry.process_id for entry in await pod.fragment.list_processes()] == ["a"]


async def test_start_of_what_cannot_be_executed(pod: Pod) -> None:
    with pytest.raises(
        fragments.ExecError, match=r'exec: "nothing": executable file not found in \$PATH'
    ) as refused:
        await pod.start("a", config(command=("nothing",)))
    assert (refused.value.exit_code, refused.value.reason) == (128, "StartError")
    with pytest.raises(NotFound):
        await pod.fragment.get("a")


async def test_exec_in_what_is_gone(pod: Pod) -> None:
    await pod.run("a", config("true", security=own_pids()))
    with pytest.raises(fragments.LaunchError, match="join mount namespace of process a: ESRCH"):
        await pod.exec("a", "true")


# ---- life and death


async def test_signals(pod: Pod) -> None:
    started = await ready(pod, "a")
    assert started.process is not None
    assert started.process == fragments.identify(started.pidfd)
    await pod.fragment.signal("a", signal.SIGTERM)
    assert (await pod.wait("a")).code == 7
    assert fragments.identify(started.pidfd) is None
    await ready(pod, "b")
    await pod.fragment.signal("b", signal.SIGKILL, all_processes=True)
    exit = await pod.wait("b")
    assert (exit.code, exit.signal) == (137, 9)
    with pytest.raises(NotFound):
        await pod.fragment.signal("none", 9)


async def test_ids_are_taken_once(pod: Pod) -> None:
    await ready(pod, "a")
    with pytest.raises(AlreadyExists, match="start a"):
        await pod.fragment.start("a", plans.claim_plan(None, {}))
    with pytest.raises(fragments.LaunchError, match=r"start \.\./x: request: EINVAL"):
        await pod.fragment.start("../x", plans.claim_plan(None, {}))


async def test_entries_outlive_their_processes(pod: Pod) -> None:
    started = await ready(pod, "a")
    entry = await pod.fragment.get("a")
    assert (entry.kind, entry.state) == (KIND_CONTAINER, State.RUNNING)
    assert fragments.identify(entry.pidfd) == started.process
    os.close(entry.pidfd)
    await pod.fragment.signal("a", signal.SIGTERM)
    exit = await pod.wait("a")
    entry = await pod.fragment.get("a")
    assert (entry.state, entry.exit, entry.pidfd) == (State.EXITED, exit, -1)
    assert (pod.folder / "exits/a").exists()
    await pod.fragment.forget("a")
    await pod.fragment.forget("a")
    assert not (pod.folder / "exits/a").exists()
    with pytest.raises(NotFound):
        await pod.fragment.get("a")


async def test_a_log_is_reopened(pod: Pod) -> None:
    await pod.start("a", config("echo one; while ! test -e /go; do sleep 0.01; done; echo two"))
    wait_until(lambda: pod.log("a"), "the first line")
    os.rename(pod.folder / "a.log", pod.folder / "old.log")
    fd = os.open(pod.folder / "a.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    await pod.fragment.reopen_log("a", fd)
    os.close(fd)
    await pod.exec("a", "touch", "/go")
    await pod.wait("a")
    assert pod.log("a") == ["two"]


async def test_a_second_connection_goes_on(pod: Pod) -> None:
    await ready(pod, "a")
    pod.fragment.close()
    with pytest.raises(fragments.FragmentLost):
        await pod.fragment.list_processes()
    assert pod.events == []
    pod.fragment = pod.connect()
    assert (await pod.fragment.hello()).phase == Phase.CLAIMED
    assert [entry.process_id for entry in await pod.fragment.list_processes()] == ["a"]
    await pod.fragment.signal("a", signal.SIGTERM)
    assert (await pod.wait("a")).code == 7


async def test_the_death_of_a_fragment_is_told(pod: Pod) -> None:
    await ready(pod, "a")
    deaths: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    pidfd = fragments.open_process(pod.spawned.process)
    copy = os.dup(pod.spawned.pidfd)
    fragments.watch_death(copy, deaths.set_result)
    waiting = asyncio.create_task(pod.fragment.signal("a", 0))
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    async with asyncio.timeout(10):
        assert await deaths == 137
        await asyncio.gather(waiting, return_exceptions=True)
        while fragments.Lost() not in pod.events:  # noqa: ASYNC110 - a condition of the loop itself
            await asyncio.sleep(0)
    with pytest.raises(fragments.FragmentLost, match="forget a: the fragment is gone"):
        await pod.fragment.forget("a")
    with pytest.raises(NotFound):
        fragments.open_process(pod.spawned.process)
    with pytest.raises(fragments.FragmentLost):
        pod.connect()
    os.close(pidfd)
    os.close(copy)
    pod.reaped = True


# ---- pid namespaces


async def test_the_pods_pid_namespace_is_shared(pod: Pod) -> None:
    await ready(pod, "a")
    _, lines = await pod.run("b", config("cat /proc/1/comm; echo $$"))
    assert lines[0] == "fragment"
    assert int(lines[1]) > 2


async def test_what_is_left_in_a_shared_namespace_is_killed(pod: Pod) -> None:
    await pod.start("a", config("sleep 4321 & echo started"))
    exit = await pod.wait("a")
    assert exit.code == 0
    group = f"{pod.cgroup}/a"
    wait_until(lambda: not pod.cgroups.pids(group), "the rest of the container to end")


async def test_a_target_is_joined(pod: Pod) -> None:
    await ready(pod, "a", security=own_pids())
    asked = config(
        "cat /proc/1/cmdline | tr '\\0' ' '",
        security={"namespaces": NamespaceOptions(pid="target", target_id="a")},
    )
    _, lines = await pod.run("b", asked, pid_of="a")
    assert lines[0].startswith("sh -c echo ready")


async def test_the_hosts_namespaces(tmp_path: Path, rootfs: Path, cgroups: Cgroups) -> None:
    modes = NamespaceOptions(network="node", pid="node", ipc="node")
    async with running_pod(tmp_path / "host", rootfs, cgroups, flags=plans.CLONE_NEWNS, modes=modes) as pod:
        script = (
            "hostname; for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; grep -c shm /proc/mounts"
        )
        _, lines = await pod.run("a", config(script))
        host = [os.readlink(f"/proc/self/ns/{name}") for name in ("net", "ipc", "uts", "pid")]
        assert lines == [os.uname().nodename, *host, "1"]


async def test_the_pods_own_namespaces(pod: Pod) -> None:
    _, lines = await pod.run(
        "a", config("for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done; ls /sys/class/net")
    )
    host = [os.readlink(f"/proc/self/ns/{name}") for name in ("net", "ipc", "uts", "pid", "mnt")]
    assert not set(lines[:5]) & set(host)
    assert lines[5:] == ["lo"]


# ---- consoles and stdin


async def test_a_terminal(pod: Pod) -> None:
    started = await pod.start("a", config("tty; echo $TERM; read x; echo got $x", tty=True, stdin=True))
    assert started.console >= 0
    wait_until(lambda: len(pod.log("a")) >= 2, "the prompt")
    os.write(started.console, b"word\n")
    await pod.wait("a")
    assert pod.log("a") == ["/dev/pts/0", "xterm", "word", "got word"]


async def test_stdin_stays_open_until_it_is_closed(pod: Pod) -> None:
    started = await pod.start("a", config("read x; echo got $x; cat; echo end", stdin=True))
    os.write(started.console, b"one\ntwo\n")
    wait_until(lambda: len(pod.log("a")) == 2, "both lines")
    os.close(started.console)
    pod.forget_fd(started.console)
    entry = await pod.fragment.get("a")
    assert entry.state == State.RUNNING
    os.close(entry.pidfd)
    os.close(entry.console)
    await pod.fragment.close_stdin("a")
    await pod.wait("a")
    assert pod.log("a") == ["got one", "two", "end"]


async def test_an_exec_has_no_stdin(pod: Pod) -> None:
    await ready(pod, "a")
    assert await pod.exec("a", "sh", "-c", "cat; echo end") == (0, "end\n")


# ---- what a process must not reach


@pytest.mark.parametrize("fd", range(3, 20))
async def test_no_working_folder_outside(pod: Pod, fd: int) -> None:
    """CVE-2024-21626: a folder's fd that is still open is a way out of the new root."""
    made = pod.request("a", config("ls / /proc/self/cwd/ | sort | tr '\\n' ' '", working_dir="/way"))
    (pod.upper("a") / "way").symlink_to(f"/proc/self/fd/{fd}")
    with pytest.raises(fragments.LaunchError):
        _, lines = await pod.run("a", made)
        pytest.fail(f"entered fd {fd}: {lines}")


@pytest.mark.parametrize("fd", range(3, 20))
async def test_no_program_from_outside(pod: Pod, fd: int) -> None:
    made = pod.request(
        "a", config(command=(f"/proc/self/fd/{fd}/../../../../../../../../../../bin/sh", "-c", "true"))
    )
    with pytest.raises(fragments.ExecError):
        await pod.run("a", made)
        pytest.fail(f"executed through fd {fd}")


async def test_exit_records_say_the_same(pod: Pod) -> None:
    exit, _ = await pod.run("a", config("exit 5"))
    assert isinstance(exit, Exit)
    text = (pod.folder / "exits/a").read_text()
    assert json.loads(text)["exit_code"] == 5


async def test_an_exec_is_not_led_out_by_its_container(pod: Pod) -> None:
    """The container's own processes may put any link where the next exec starts."""
    await ready(pod, "a", security=own_pids())
    image = requests.merged(config("true", working_dir="/way"), IMAGE)
    for fd in range(3, 20):
        await pod.exec("a", "ln", "-sfn", f"/proc/self/fd/{fd}", "/way")
        with pytest.raises(fragments.LaunchError, match="change directory to /way: E"):
            await pod.exec("a", "ls", process=image)
