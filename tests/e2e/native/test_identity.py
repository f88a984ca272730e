"""Identity and credentials: of containers, and of the fragment itself (ADOPT)."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from tests.e2e.native import raw
from tests.e2e.native.bed import FIRST_SLOT, Bed, start
from tests.e2e.native.raw import Fragment, Op, Plan, Refused

pytestmark = pytest.mark.root

RTM_NEWLINK, RTM_GETLINK = 16, 18
ACK_REQUEST = 1 | 4
CAP_CHOWN, CAP_NET_RAW, CAP_SYS_ADMIN = 1 << 0, 1 << 13, 1 << 21


def link_up(index: int, flags: int = ACK_REQUEST, sequence: int = 7) -> bytes:
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 1, 1)
    return struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, flags, sequence, 0) + body


def in_namespaces(pid: int, *command: str) -> str:
    return subprocess.run(
        ["nsenter", "-t", str(pid), "-n", "-u", *command], capture_output=True, text=True, check=True
    ).stdout


def test_adopt_gives_the_fragment_its_identity(bed: Bed, fragment: Fragment) -> None:
    ops: list[Op] = [
        ("HOSTNAME", "web-0"),
        ("SYSCTL", "net/ipv4/ip_unprivileged_port_start", "0"),
        ("NETLINK", link_up(1, sequence=1) + link_up(1, sequence=2)),
        ("OOM_SCORE", 500),
        ("UMASK", 0o022),
    ]
    fragment.client.adopt(Plan(ops=ops), claim=True)
    assert in_namespaces(fragment.pid, "hostname") == "web-0\n"
    assert Path(f"/proc/{fragment.pid}/oom_score_adj").read_text() == "500\n"
    script = "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/net/if_inet6 | wc -l"
    bed.run(fragment, bed.shell(script))
    assert bed.output().splitlines()[:2] == ["web-0", "0"]
    assert bed.output().splitlines()[2] == "1"  # lo has ::1, so it is up


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        (link_up(999), errno.ENODEV),
        (link_up(1) + link_up(999), errno.ENODEV),
        (link_up(1, flags=1), errno.EINVAL),
        (link_up(1)[:-1], errno.EINVAL),
        (struct.pack("=IHHII", 8, 16, ACK_REQUEST, 1, 0), errno.EINVAL),
        (struct.pack("=IHHII", 16, RTM_GETLINK, ACK_REQUEST | 0x300, 1, 0), errno.EINVAL),
    ],
)
def test_bad_netlink(fragment: Fragment, messages: bytes, error: int) -> None:
    with pytest.raises(Refused) as refused:
        fragment.client.adopt(Plan(ops=[("NETLINK", messages)]))
    assert refused.value.error == error
    assert fragment.client.hello().newest == 1


def test_sysctl_leaves_neither_proc_sys_nor_its_mount(bed: Bed, fragment: Fragment) -> None:
    for path in ("../../etc/passwd", "/etc/passwd", "kernel/../../../x"):
        with pytest.raises(Refused) as refused:
            fragment.client.adopt(Plan(ops=[("SYSCTL", path, "x")]))
        assert refused.value.error in (errno.EXDEV, errno.ENOENT)
    victim = bed.scratch / "victim"
    victim.write_text("safe")
    plan = bed.container(
        ["/bin/true"],
        gather=[("OPEN_TREE", FIRST_SLOT, str(victim), 0)],
        before_pivot=[("ATTACH", FIRST_SLOT, "/proc/sys/kernel/hostname", 0, 0, 0)],
        after_pivot=[("SYSCTL", "kernel/hostname", "x")],
    )
    with pytest.raises(Refused) as refused:
        start(fragment, "c", plan)
    assert refused.value.error == errno.EXDEV
    assert victim.read_text() == "safe"


def test_a_donated_network_namespace_is_adopted(bed: Bed) -> None:
    fragment = bed.fragment(raw.OWN & ~raw.NEWNET)
    other = bed.fragment()
    plan = Plan()
    slot = plan.donate(bed.open(f"/proc/{other.pid}/ns/net"))
    plan.ops = [("JOIN_NS", slot, raw.NEWNET)]
    fragment.client.adopt(plan)
    assert os.readlink(f"/proc/{fragment.pid}/ns/net") == os.readlink(f"/proc/{other.pid}/ns/net")


def test_oom_score_is_clamped(bed: Bed, fragment: Fragment) -> None:
    """Without CAP_SYS_RESOURCE a negative score is out of reach; the launch goes on with the lowest one."""
    drop = bed.container(["/bin/sleep", "1000"], after_pivot=[("OOM_SCORE", -998)])
    pid = start(fragment, "c", drop)
    can = bool(int(status(os.getpid())["CapEff"], 16) >> 24 & 1)
    inherited = int(Path("/proc/self/oom_score_adj").read_text())
    score = int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    assert score == -998 if can else -998 <= score <= max(inherited, 0)


def test_rlimit_and_umask(bed: Bed) -> None:
    ops: list[Op] = [("RLIMIT", resource.RLIMIT_NOFILE, 77, 99), ("UMASK", 0o027)]
    assert bed.run_shell("ulimit -Sn; ulimit -Hn; umask", after_pivot=ops) == "77\n99\n0027\n"
    assert bed.run_shell("umask") == "0022\n"


def status(pid: int | str, root: str = "/proc") -> dict[str, str]:
    lines = Path(f"{root}/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_ids_and_groups(bed: Bed, fragment: Fragment) -> None:
    ops: list[Op] = [("IDS", 1000, 2000, struct.pack("=III", 2000, 3000, 4000))]
    pid = start(fragment, "c", bed.shell("id -u > /dev/stdout; exec sleep 1000", after_pivot=ops))
    found = status(pid)
    assert found["Uid"].split() == ["1000"] * 4
    assert found["Gid"].split() == ["2000"] * 4
    assert found["Groups"].split() == ["2000", "3000", "4000"]
    assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 0
    raw.eventually(lambda: bed.output() == "1000\n")


def test_capabilities(bed: Bed, fragment: Fragment) -> None:
    kept = CAP_CHOWN | CAP_NET_RAW
    ops: list[Op] = [
        ("BOUNDING", kept),
        ("IDS", 1000, 1000, b""),
        ("CAPABILITIES", kept, kept, kept, CAP_NET_RAW),
    ]
    found = status(start(fragment, "c", bed.container(["/bin/sleep", "1000"], after_pivot=ops)))
    assert int(found["CapBnd"], 16) == kept
    assert int(found["CapAmb"], 16) == int(found["CapEff"], 16) == int(found["CapPrm"], 16) == CAP_NET_RAW
    assert int(found["CapInh"], 16) == kept
    ops = [("BOUNDING", kept), ("IDS", 0, 0, b""), ("CAPABILITIES", kept, kept, 0, 0), ("NO_NEW_PRIVS",)]
    found = status(start(fragment, "root", bed.container(["/bin/sleep", "1000"], after_pivot=ops)))
    assert int(found["CapEff"], 16) == kept
    assert found["NoNewPrivs"] == "1"


def seccomp(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *each) for each in instructions)


def test_seccomp(bed: Bed, fragment: Fragment) -> None:
    """sethostname(2) answers 99; without NO_NEW_PRIVS too, while CAP_SYS_ADMIN is still there."""
    deny = seccomp(
        (0x20, 0, 0, 0), (0x15, 0, 1, 170), (0x06, 0, 0, 0x00050000 | 99), (0x06, 0, 0, 0x7FFF0000)
    )
    user: list[Op] = [("IDS", 1000, 1000, b""), ("SECCOMP", deny, 0), ("CAPABILITIES", 0, 0, 0, 0)]
    for ops in ([("NO_NEW_PRIVS",), ("SECCOMP", deny, 0)], user):
        bed.log_path.unlink(missing_ok=True)
        bed.run(fragment, bed.shell("hostname other; true", after_pivot=ops))
        assert "errno 99" in bed.log_lines()[0][2] or "Cannot assign" in bed.log_lines()[0][2]


def test_seccomp_that_kills_the_launch_is_told(bed: Bed, fragment: Fragment) -> None:
    kill = seccomp((0x06, 0, 0, 0x80000000))
    plan = bed.container(["/bin/true"], after_pivot=[("NO_NEW_PRIVS",), ("SECCOMP", kill, 0)])
    with pytest.raises(Refused) as refused:
        start(fragment, "c", plan)
    assert refused.value.error == errno.ECHILD


def test_chdir(bed: Bed, fragment: Fragment) -> None:
    plan = bed.container(["/bin/pwd"], before_pivot=[("MKDIR", "/dev/made/here", 0o755, 0, 0)])
    plan.ops[-2] = ("CHDIR", "/dev/made/here")
    bed.run(fragment, plan)
    assert bed.output() == "/dev/made/here\n"


def test_nothing_leaks_into_the_container(bed: Bed, fragment: Fragment) -> None:
    """Its fds, its signals, its environment, its session."""
    extra = [os.open("/", os.O_RDONLY) for _ in range(5)]
    for fd in extra:
        os.set_inheritable(fd, True)
    plan = bed.container(["/bin/sleep", "1000"])
    for fd in extra:
        plan.donate(fd)
    pid = start(fragment, "c", plan)
    for fd in extra:
        os.close(fd)
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    found = status(pid)
    assert int(found["SigBlk"], 16) == int(found["SigIgn"], 16) == int(found["SigCgt"], 16) == 0
    assert Path(f"/proc/{pid}/environ").read_bytes() == b"PATH=/bin\0"
    assert os.getsid(pid) == pid
