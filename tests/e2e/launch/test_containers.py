"""What a container sees of its world."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

import pytest

from phantom_cri import codec
from phantom_cri.model import CapabilitySets, CompiledPolicy, Device, EnvVar, User
from tests.e2e.launch.pod import UNLIMITED, USUAL, USUAL_CAPABILITIES, Pod, config, mount, own_pids

pytestmark = pytest.mark.root

STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid|Gid)' /proc/self/status"


def status_of(lines: list[str]) -> dict[str, str]:
    return {name: " ".join(rest.split()) for name, _, rest in (line.partition(":") for line in lines)}


async def test_a_container_runs_logs_and_exits(pod: Pod) -> None:
    exit, lines = await pod.run("a", config("echo hello; hostname; echo bad >&2; exit 3"))
    assert (exit.code, exit.signal, exit.oom) == (3, 0, False)
    assert lines == ["hello", "pod", "bad"]
    assert 0 < exit.started_at <= exit.finished_at


async def test_environment_arguments_and_folder(pod: Pod) -> None:
    asked = config(
        'echo "$A|$HOSTNAME|$HOME|$0|$1"; pwd; umask; stat -c %a:%u /made/for',
        envs=(EnvVar(name="A", value="b c"),),
        args=("x", "y z"),
        working_dir="/made/for/it",
    )
    _, lines = await pod.run("a", asked)
    assert lines == ["b c|pod|/root|x|y z", "/made/for/it", "0022", "755:0"]


async def test_mounts_are_the_standard_ones(pod: Pod) -> None:
    _, lines = await pod.run("a", config("cat /proc/self/mounts"))
    seen = {line.split()[1]: line.split()[2:4] for line in lines}
    kinds = {path: kind for path, (kind, _) in seen.items()}
    assert kinds["/"] == "overlay"
    assert kinds["/proc"] == "proc"
    assert kinds["/dev"] == "tmpfs"
    assert kinds["/dev/pts"] == "devpts"
    assert kinds["/dev/mqueue"] == "mqueue"
    assert kinds["/dev/shm"] == "tmpfs"
    assert kinds["/sys"] == "sysfs"
    assert "/sys/fs/cgroup" in kinds
    for path in ("/sys", "/sys/fs/cgroup", "/proc/sys", "/proc/bus"):
        assert "ro" in seen[path][1].split(","), path
    assert not any("rootfs" in path or "phantom" in path for path in kinds)


async def test_its_cgroup_is_all_it_sees(pod: Pod) -> None:
    script = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do cat $d/cgroup.procs 2>/dev/null; done | sort -u"
    _, lines = await pod.run("a", config(script, security=own_pids()))
    # Its own processes; one of the host's would be listed as 0, having no pid in the container's namespace.
    assert "1" in lines
    assert "0" not in lines
    _, lines = await pod.run("b", config("mkdir /sys/fs/cgroup/memory/x /sys/fs/cgroup/x 2>&1"))
    assert all("Read-only file system" in line or "No such file" in line for line in lines), lines


async def test_devices(pod: Pod, tmp_path: Path) -> None:
    link = tmp_path / "zero"
    link.symlink_to("/dev/zero")
    asked = config(
        "echo x > /dev/null; head -c 3 /dev/zero | wc -c; readlink /dev/ptmx; readlink /dev/stderr;"
        "stat -c '%n %t:%T %F' /dev/null /dev/deep/er/zero; echo y > /dev/tty",
        devices=(Device(host_path=str(link), container_path="/dev/deep/er/zero"),),
    )
    _, lines = await pod.run("a", asked)
    assert lines[:5] == [
        "3",
        "pts/ptmx",
        "/proc/self/fd/2",
        "/dev/null 1:3 character special file",
        "/dev/deep/er/zero 1:5 character special file",
    ]


async def test_masked_and_read_only_paths(pod: Pod) -> None:
    policy = codec.replace(
        USUAL,
        masked_paths=(*USUAL.masked_paths, "/etc/passwd", "/home"),
        readonly_paths=(*USUAL.readonly_paths, "/tmp"),
    )
    script = (
        "wc -c < /etc/passwd; ls -A /home | wc -l; touch /home/x; touch /tmp/x;"
        "echo 1 > /proc/sys/kernel/panic; wc -c < /proc/keys; ls /sys/firmware | wc -l"
    )
    _, lines = await pod.run("a", config(script), policy=policy)
    assert lines == [
        "0",
        "0",
        "touch: /home/x: Read-only file system",
        "touch: /tmp/x: Read-only file system",
        "sh: can't create /proc/sys/kernel/panic: Read-only file system",
        "0",
        "0",
    ]


async def test_a_read_only_root_still_has_its_mounts(pod: Pod) -> None:
    asked = config(
        "touch /x; touch /dev/shm/x && echo shm; pwd",
        security={"readonly_rootfs": True},
        working_dir="/made",
    )
    _, lines = await pod.run("a", asked)
    assert lines == ["touch: /x: Read-only file system", "shm", "/made"]


async def test_shm_belongs_to_the_pod(pod: Pod) -> None:
    await pod.run("a", config("echo shared > /dev/shm/x"))
    assert (await pod.run("b", config("cat /dev/shm/x")))[1] == ["shared"]


async def test_privileged(pod: Pod) -> None:
    asked = config(
        "test -e /dev/loop-control && echo host; mount -t tmpfs t /tmp && echo mounted;"
        "grep ' /sys ' /proc/self/mounts | cut -d' ' -f4 | cut -d, -f1",
        security={"privileged": True},
    )
    _, lines = await pod.run("a", asked, policy=UNLIMITED)
    assert lines == ["host", "mounted", "rw"]


# ---- credentials


async def test_root_has_the_given_capabilities_and_no_more(pod: Pod) -> None:
    _, lines = await pod.run("a", config(STATUS))
    assert status_of(lines) == {
        "Uid": "0 0 0 0",
        "Gid": "0 0 0 0",
        "Groups": "0",
        "CapInh": "0" * 16,
        "CapPrm": f"{USUAL_CAPABILITIES:016x}",
        "CapEff": f"{USUAL_CAPABILITIES:016x}",
        "CapBnd": f"{USUAL_CAPABILITIES:016x}",
        "CapAmb": "0" * 16,
        "NoNewPrivs": "0",
        "Seccomp": "0",
    }


async def test_a_user_has_none(pod: Pod) -> None:
    user = User(uid=1000, gid=1001, groups=(1001, 1234, 50000))
    _, lines = await pod.run("a", config(f"{STATUS}; echo x > /dev/stdout"), user=user)
    seen = status_of(lines[:-1])
    assert (seen["Uid"], seen["Gid"], seen["Groups"]) == (
        "1000 " * 3 + "1000",
        "1001 " * 3 + "1001",
        "1001 1234 50000",
    )
    assert (seen["CapPrm"], seen["CapEff"], seen["CapBnd"]) == (
        "0" * 16,
        "0" * 16,
        f"{USUAL_CAPABILITIES:016x}",
    )
    assert lines[-1] == "x"


async def test_ambient_capabilities_survive_for_a_user(pod: Pod) -> None:
    bind = 1 << 10  # CAP_NET_BIND_SERVICE
    policy = CompiledPolicy(capabilities=CapabilitySets(bind, bind, bind, bind, bind))
    _, lines = await pod.run("a", config(STATUS), user=User(uid=1000, gid=1000), policy=policy)
    seen = status_of(lines)
    assert [seen[name] for name in ("CapAmb", "CapEff", "CapBnd")] == [f"{bind:016x}"] * 3


def deny(call: int) -> bytes:
    """A filter that answers one system call of x86-64 or arm64 with EPERM."""
    load, equal, answer = 0x20, 0x15, 0x06
    steps = [(load, 0, 0, 0), (equal, 0, 1, call), (answer, 0, 0, 0x50001), (answer, 0, 0, 0x7FFF0000)]
    return b"".join([struct.pack("<HBBI", *step) for step in steps])


SETHOSTNAME = {"x86_64": 170, "aarch64": 161}[os.uname().machine]


@pytest.mark.parametrize("no_new_privs", [True, False])
@pytest.mark.parametrize("uid", [0, 1000])
async def test_a_filter_holds(pod: Pod, no_new_privs: bool, uid: int) -> None:
    policy = codec.replace(UNLIMITED, no_new_privs=no_new_privs, seccomp=deny(SETHOSTNAME))
    _, lines = await pod.run("a", config(f"{STATUS}; hostname x"), policy=policy, user=User(uid=uid, gid=uid))
    seen = status_of(lines[:-1])
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", str(int(no_new_privs)))
    assert lines[-1] == "hostname: sethostname: Operation not permitted"


async def test_a_folder_only_root_may_enter(pod: Pod, rootfs: Path) -> None:
    launch = pod.request("a", config("pwd", working_dir="/root"), user=User(uid=1000, gid=1000))
    (pod.upper("a") / "root").mkdir(mode=0o700)
    assert (await pod.run("a", launch))[1] == ["/root"]
    launch = pod.request("b", config("pwd", working_dir="/mine"), user=User(uid=1000, gid=1000))
    (pod.upper("b") / "mine").mkdir(mode=0o700)
    os.chown(pod.upper("b") / "mine", 1000, 1000)
    assert (await pod.run("b", launch))[1] == ["/mine"]


async def test_only_its_own_fds_are_open(pod: Pod) -> None:
    _, lines = await pod.run(
        "a", config("ls /proc/self/fd | tr '\\n' ' '; ls -l /proc/1/fd | wc -l", security=own_pids())
    )
    assert lines[0].split()[:3] == ["0", "1", "2"]
    assert len(lines[0].split()) <= 5  # ls has its own directory open


async def test_a_socket_or_fifo_as_a_mount(pod: Pod, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "sock"))
    asked = config(
        "stat -c %F /a /b", mounts=(mount(str(tmp_path / "fifo"), "/a"), mount(str(tmp_path / "sock"), "/b"))
    )
    assert (await pod.run("a", asked))[1] == ["fifo", "socket"]
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
