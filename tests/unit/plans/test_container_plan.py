"""Whole plans as they print: what a reviewer reads is what a fragment does."""

from __future__ import annotations

from typing import Any

import pytest

from phantom_cri import codec
from phantom_cri.errors import Internal, InvalidArgument
from phantom_cri.model import (
    CapabilitySets,
    CompiledPolicy,
    ImageConfig,
    ImageMount,
    ImageSpec,
    InjectedHook,
    NamespaceOptions,
    Resources,
    User,
)
from phantom_cri.plans import (
    CgroupView,
    ExecLaunch,
    GivenMount,
    Hooks,
    Io,
    Limit,
    MountRoot,
    Namespaces,
    PodIds,
    constants,
    container_plan,
    exec_plan,
    wants_template,
)
from phantom_cri.plans.ops import Capabilities, Chdir, Ids, NoNewPrivs, Overlay, OverlayWith, Seccomp
from phantom_cri.requests import merged
from tests.unit.plans.decoder import decode
from tests.unit.requests.asked import container, mount, spec_of

V2 = ("host_mounts", "kill", "oom", "cgroup", "log")
STANDARD_DEV = """\
make device /dev/null c 1:3 0666 0:0
make device /dev/zero c 1:5 0666 0:0
make device /dev/full c 1:7 0666 0:0
make device /dev/random c 1:8 0666 0:0
make device /dev/urandom c 1:9 0666 0:0
make device /dev/tty c 5:0 0666 0:0
symlink /dev/fd to /proc/self/fd
symlink /dev/stdin to /proc/self/fd/0
symlink /dev/stdout to /proc/self/fd/1
symlink /dev/stderr to /proc/self/fd/2
symlink /dev/core to /proc/kcore
symlink /dev/ptmx to pts/ptmx
"""


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def test_the_host_mount_namespace_must_come_along() -> None:
    with pytest.raises(Internal, match="needs fd 'host_mounts', donated are \\['log'\\]"):
        container_plan(spec_of(container()), ("log",))


def test_a_usual_container_on_v2() -> None:
    config = container(
        mounts=(
            mount("/pods/1/token", "/var/run/secrets/token", readonly=True),
            mount("/pods/1/hosts", "/etc/hosts"),
        ),
        working_dir="/srv",
        resources=Resources(oom_score_adj=500),
        security={"namespaces": NamespaceOptions(pid="container"), "no_new_privs": True},
    )
    policy = CompiledPolicy(
        capabilities=CapabilitySets(0xFF, 0xF, 0xF),
        no_new_privs=True,
        seccomp=bytes(16),
        masked_paths=("/proc/kcore", "/sys/firmware"),
        readonly_paths=("/proc/sys",),
    )
    spec = spec_of(
        config,
        policy=policy,
        user=User(uid=1000, gid=1000, groups=(1000, 50000)),
        pod_files=(("/etc/resolv.conf", "/pod/resolv.conf"), ("/etc/hosts", "/pod/hosts")),
        cgroup_view=CgroupView(),
    )
    plan = container_plan(spec, V2)
    before = """\
set the OOM score 500
join mount namespace of host_mounts
open /pod/resolv.conf
open /pods/1/hosts with its submounts, made if missing
open /pods/1/token with its submounts, made if missing
overlay /c/upper over /layers/b:/layers/a
join mount namespace of the fragment
new mount and cgroup namespaces
the image's root as root
new proc nosuid, nodev, noexec
new tmpfs mode=755, size=65536k, nosuid, strictatime
new devpts ptmxmode=0666, mode=0620, gid=5, nosuid, noexec
new mqueue nosuid, nodev, noexec
open /shm
new sysfs read-only, nosuid, nodev, noexec
new cgroup2 read-only, nosuid, nodev, noexec
mount proc on /proc
mount tmpfs on /dev
mount devpts on /dev/pts
mount mqueue on /dev/mqueue
bind /shm on /dev/shm
mount sysfs on /sys
mount cgroup2 on /sys/fs/cgroup
"""
    after = """\
bind /pod/resolv.conf on /etc/resolv.conf
bind /pods/1/hosts on /etc/hosts
bind /pods/1/token on /var/run/secrets/token read-only
make directory /srv 0755 0:0
mask /proc/kcore
mask /sys/firmware
make /proc/sys read-only
pivot into the root
set umask 0022
limit capabilities to 0xff
set no_new_privs
become user 1000:1000 groups 1000, 50000
change directory to /srv
set capabilities effective 0xf, permitted 0xf, inheritable 0x0, ambient 0x0
load a seccomp filter of 2 instructions
exec sh
"""
    assert plan.describe() == lines(before + STANDARD_DEV + after)
    header = decode(plan.encode()).header
    assert (header["kind"], header["flags"]) == (constants.KIND_CONTAINER, constants.PLAN_LOG)
    assert header["clone_flags"] == constants.CLONE_NEWPID
    assert [header[name] for name in ("cgroup", "log", "kill", "oom", "stdin")] == [3, 4, 1, 2, -1]


def test_every_slot_is_filled_once_and_before_its_use() -> None:
    view = CgroupView((("memory", "/cg/memory/x"), ("cpu,cpuacct", "/cg/cpu/x")), (("cpu", "cpu,cpuacct"),))
    spec = spec_of(container(mounts=(mount("/a", "/b"), mount("/c", "/d"))), cgroup_view=view)
    donated = ("host_mounts", "kill", "oom", "procs0", "procs1", "log")
    filled = set(range(len(donated)))
    for name, fields in decode(container_plan(spec, donated).encode()).ops:
        if name in ("OPEN_TREE", "OVERLAY", "NEW_FS"):
            assert fields["slot"] not in filled
            filled.add(fields["slot"])
        elif "slot" in fields:
            assert fields["slot"] in filled


def test_v1_hierarchies() -> None:
    view = CgroupView((("memory", "/cg/memory/x"), ("cpu,cpuacct", "/cg/cpu/x")), (("cpu", "cpu,cpuacct"),))
    spec = spec_of(container(), cgroup_view=view)
    described = container_plan(spec, ("host_mounts", "procs0", "procs1", "log")).describe()
    assert described[1:3] == ["enter procs0", "enter procs1"]
    assert described[4:6] == ["open /cg/memory/x", "open /cg/cpu/x"]
    at = described.index("bind /cg/memory/x on /sys/fs/cgroup/memory read-only, nosuid, nodev, noexec")
    assert described[at + 1 : at + 4] == [
        "bind /cg/cpu/x on /sys/fs/cgroup/cpu,cpuacct read-only, nosuid, nodev, noexec",
        "symlink /sys/fs/cgroup/cpu to cpu,cpuacct",
        "remount /sys/fs/cgroup read-only, nosuid, nodev, noexec",
    ]
    assert "new mount namespace" in described  # no cgroup namespace on v1


def test_privileged() -> None:
    config = container(security={"privileged": True})
    described = container_plan(spec_of(config, cgroup_view=CgroupView()), V2).describe()
    assert "new sysfs nosuid, nodev, noexec" in described
    assert "new cgroup2 nosuid, nodev, noexec" in described
    assert "new mount namespace" in described


def test_a_read_only_root_is_sealed_last() -> None:
    config = container(security={"readonly_rootfs": True})
    described = container_plan(spec_of(config, pod_files=(("/etc/hosts", "/pod/hosts"),)), V2).describe()
    at = described.index("remount / read-only")
    assert described[at + 1] == "pivot into the root"
    assert "bind /pod/hosts on /etc/hosts read-only" in described


def test_the_hosts_ipc_brings_the_hosts_shm() -> None:
    spec = spec_of(container(), pod=NamespaceOptions(ipc="node"))
    described = container_plan(spec, V2).describe()
    assert "bind /dev/shm on /dev/shm" in described
    assert "open /shm" not in described
    covered = spec_of(container(mounts=(mount("/dev", "/dev"),)), pod=NamespaceOptions(ipc="node"))
    assert "open /dev/shm with its submounts" not in container_plan(covered, V2).describe()


@pytest.mark.parametrize(
    ("target", "gone"),
    [
        ("/dev", ["/dev", "/dev/pts", "/dev/mqueue", "/dev/shm"]),
        ("/dev/shm", ["/dev/shm"]),
        ("/sys", ["/sys", "/sys/fs/cgroup"]),
        ("/sys/fs", ["/sys/fs/cgroup"]),
        ("/dev/shmx", []),
    ],
)
def test_mounts_replace_the_standard_ones(target: str, gone: list[str]) -> None:
    spec = spec_of(container(mounts=(mount("/a", target),)), cgroup_view=CgroupView())
    found = [fields for name, fields in decode(container_plan(spec, V2).encode()).ops if name == "ATTACH"]
    targets = [fields["target"] for fields in found]
    standard = ["/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys", "/sys/fs/cgroup"]
    kept = [path for path in standard if path not in gone]
    assert targets == [*kept, target]


def test_parents_are_mounted_before_what_lies_in_them() -> None:
    config = container(
        mounts=(mount("/1", "/a/b/c"), mount("/2", "/a"), mount("/3", "/z"), mount("/4", "/a/b"))
    )
    spec = spec_of(config, volumes=("/data/x",), pod_files=(("/etc/hosts", "/h"),))
    described = container_plan(spec, V2).describe()
    binds = [line for line in described if line.startswith("bind") and "shm" not in line]
    assert binds == [
        "bind /2 on /a",
        "bind /3 on /z",
        "bind /h on /etc/hosts",
        "bind /c/volume%2Fdata%2Fx on /data/x",
        "bind /4 on /a/b",
        "bind /1 on /a/b/c",
    ]


@pytest.mark.parametrize(
    ("pid", "clone", "flags"),
    [
        ("container", constants.CLONE_NEWPID, 0),
        ("pod", 0, constants.PLAN_KILL_REST),
        ("node", 0, constants.PLAN_KILL_REST),
        ("target", 0, constants.PLAN_KILL_REST),
    ],
)
def test_pid_modes(pid: str, clone: int, flags: int) -> None:
    config = container(security={"namespaces": NamespaceOptions(pid=pid, target_id="t")})  # type: ignore[arg-type]
    plan = container_plan(spec_of(config, pid_of="t"), V2)
    assert (plan.clone_flags, plan.flags & constants.PLAN_KILL_REST) == (clone, flags)
    assert plan.pid_namespace_of == ("t" if pid == "target" else "")


def test_streams() -> None:
    assert (
        container_plan(spec_of(container(stdin=True)), V2).flags & 7
        == constants.PLAN_LOG | constants.PLAN_STDIN
    )
    tty = container_plan(spec_of(container(tty=True)), ("host_mounts",))
    assert tty.flags & constants.PLAN_TTY
    assert (tty.log, tty.cgroup) == ("", "")


@pytest.mark.parametrize("no_new_privs", [True, False])
def test_the_filter_is_loaded_where_it_can_be(no_new_privs: bool) -> None:
    policy = CompiledPolicy(no_new_privs=no_new_privs, seccomp=bytes(8))
    kinds = [type(op) for op in container_plan(spec_of(container(), policy=policy), V2).ops()]
    order = [kind for kind in kinds if kind in (NoNewPrivs, Seccomp, Ids, Chdir, Capabilities)]
    if no_new_privs:
        assert order == [NoNewPrivs, Ids, Chdir, Capabilities, Seccomp]
    else:
        assert order == [Seccomp, Ids, Chdir, Capabilities]


def test_the_same_block_is_encoded_once() -> None:
    first = container_plan(spec_of(container()), V2)
    second = container_plan(spec_of(codec.replace(container(), working_dir="/")), V2)
    assert [a for a, b in zip(first.parts, second.parts, strict=True) if a is b]


def test_what_the_node_does_for_a_container() -> None:
    """An image, a hook and a profile: sources first and overlays last of them; hooks before what masks."""
    config = container(
        mounts=(mount("", "/m", readonly=True, image=ImageSpec(image="i")), mount("/d", "/m/d")),
    )
    hook = InjectedHook("createContainer", "/bin/hook", ("hook", "ldcache"), ("A=b",), 5)
    spec = spec_of(
        config,
        policy=CompiledPolicy(masked_paths=("/x",), apparmor="web"),
        mounted=(ImageMount("sha256:1", ("/i/2", "/i/1"), ("/i/2", "/i/1")),),
        hooks=Hooks((hook,), b"{}", "/c/bundle"),
    )
    plan = container_plan(spec, V2)
    told = plan.describe()
    assert told[0] == "set the OOM score 0"
    first = told.index("join mount namespace of host_mounts") + 1
    assert told[first : first + 4] == [
        "open /d with its submounts, made if missing",
        "open / with its submounts",
        "overlay /i/2:/i/1",
        "overlay /c/upper over /layers/b:/layers/a",
    ]
    last = told.index("an image on /m read-only")
    assert told[last : last + 6] == [
        "an image on /m read-only",
        "bind /d on /m/d",
        "show the root to the node's programs, at /c/bundle/rootfs",
        "run hook /bin/hook ldcache",
        "execute as apparmor web",  # the hook is the node's own
        "mask /x",
    ]
    assert decode(plan.encode()).ops[told.index("run hook /bin/hook ldcache")][1] == {
        "path": "/bin/hook",
        "state": b"{}",
        "argv": ("hook", "ldcache"),
        "envp": ("A=b",),
        "timeout": 5,
    }


# ---- exec

PROCESS = merged(container(command=("sh",)), ImageConfig(), hostname="pod", home="/root")


def test_commands_that_are_none() -> None:
    for command in ((), ("",), ("a", "b\0")):
        with pytest.raises(InvalidArgument, match="cmd"):
            process = codec.replace(PROCESS, args=command)
            exec_plan(ExecLaunch(container_id="c", process=process, user=User()), ())


def test_an_exec() -> None:
    launch = ExecLaunch(
        container_id="c1",
        process=codec.replace(PROCESS, args=("ls", "-l"), cwd="/srv"),
        user=User(uid=5, gid=6, groups=(6,)),
        policy=CompiledPolicy(capabilities=CapabilitySets(3, 3, 3)),
        own_pid_namespace=True,
        own_cgroup_namespace=True,
        oom_score_adj=7,
    )
    plan = exec_plan(launch, ("procs0", "cgroup", "stdout", "stderr"))
    assert plan.describe() == [
        "set the OOM score 7",
        "enter procs0",
        "join mount and cgroup namespaces of process c1",
        "set umask 0022",
        "limit capabilities to 0x3",
        "become user 5:6 groups 6",
        "change directory to /srv",
        "set capabilities effective 0x3, permitted 0x3, inheritable 0x0, ambient 0x0",
        "exec ls -l",
    ]
    decoded = decode(plan.encode())
    assert decoded.pid_namespace_of == "c1"
    header = decoded.header
    assert (header["kind"], header["flags"]) == (constants.KIND_EXEC, 0)
    assert [header[name] for name in ("cgroup", "stdin", "stdout", "stderr")] == [1, -1, 2, 3]
    assert decoded.ops[-1][1]["envp"] == PROCESS.env


def test_an_exec_with_a_terminal() -> None:
    launch = ExecLaunch(container_id="c1", process=PROCESS, user=User(), tty=True)
    plan = exec_plan(launch, ())
    assert plan.flags == constants.PLAN_TTY
    assert plan.pid_namespace_of == ""
    assert decode(plan.encode()).ops[-1][1]["envp"] == PROCESS.env


# ---- what a wire other than CRI gives


def test_a_root_of_given_mounts() -> None:
    root = MountRoot(
        (
            GivenMount("overlay", "overlay", "", ("index=off", "nodev", "lowerdir=/b:/a")),
            GivenMount("bind", "/data", "/data", ("rbind", "ro", "rnosuid", "rslave")),
            GivenMount("ext4", "/dev/x", "/x", ("ro", "noload")),
            GivenMount("tmpfs", "t", "/tmp", ("size=1k",)),
        )
    )
    spec = spec_of(container(), root=root)
    told = container_plan(spec, V2).describe()
    at = told.index("join mount namespace of host_mounts") + 1
    assert told[at : at + 15] == [
        "open /data with its submounts",
        "make bind /data read-only",
        "make bind /data nosuid with its submounts",
        "new ext4 source=/dev/x, noload, ro",
        "make mount ext4 read-only",
        "overlay /b:/a index=off",
        "make an image nodev",
        "join mount namespace of the fragment",
        "new mount namespace",
        "an image as root",
        "bind /data on /data slave",
        "mount ext4 on /x",
        "new tmpfs source=t, size=1k",
        "mount tmpfs on /tmp",
        "new proc nosuid, nodev, noexec",
    ]


def test_an_overlay_needs_the_new_op_for_options_alone() -> None:
    """Which a fragment of an earlier release does not have."""
    plain = GivenMount("overlay", "overlay", "", ("lowerdir=/b:/a", "volatile"))
    plan = container_plan(spec_of(container(), root=MountRoot((plain,))), V2)
    (found,) = [op for op in plan.ops() if op.number in (Overlay.number, OverlayWith.number)]
    assert found == Overlay(found.slot, ("/b", "/a"), "", "", constants.OVERLAY_VOLATILE)  # type: ignore[attr-defined]


def test_given_mounts_keep_their_owners_in_a_user_namespace() -> None:
    given = GivenMount("overlay", "overlay", "", ("lowerdir=/b:/a",))
    spec = codec.replace(
        spec_of(container(), root=MountRoot((given,))), namespaces=Namespaces(user=PodIds(1000, 10, 1000, 10))
    )
    names = [type(op).__name__ for op in container_plan(spec, V2).ops()]
    assert "Overlay" in names and "OverlayMapped" not in names


@pytest.mark.parametrize(
    ("io", "flags", "stdio"),
    [
        (Io("given"), 0, [2, -1, 3]),
        (Io("console"), constants.PLAN_TTY | constants.PLAN_UNREAD, [-1, -1, -1]),
        (Io("terminal"), constants.PLAN_TTY | constants.PLAN_LOG, [-1, -1, -1]),
        (Io(), constants.PLAN_LOG, [-1, -1, -1]),
    ],
)
def test_the_kinds_of_streams(io: Io, flags: int, stdio: list[int]) -> None:
    spec = codec.replace(spec_of(container()), io=io)
    header = decode(container_plan(spec, ("host_mounts", "log", "stdin", "stderr")).encode()).header
    assert header["flags"] & ~constants.PLAN_KILL_REST == flags
    assert [header[name] for name in ("stdin", "stdout", "stderr")] == stdio


@pytest.mark.parametrize(("network", "name"), [("given", "network"), ("host", "host_network")])
def test_other_networks(network: Any, name: str) -> None:
    spec = codec.replace(spec_of(container()), namespaces=Namespaces(network=network))
    assert not wants_template(spec)
    told = container_plan(spec, ("host_mounts", name)).describe()
    assert told[1:3] == [f"join net namespace of {name}", "join mount namespace of host_mounts"]


def test_limits_come_before_the_user_namespace() -> None:
    process = codec.replace(PROCESS, umask=0o077, rlimits=(Limit(7, 1, 2), Limit(99, 0, 0)))
    spec = codec.replace(
        spec_of(container()), process=process, namespaces=Namespaces(user=PodIds(1000, 10, 1000, 10))
    )
    launch = ExecLaunch(container_id="c", process=process, user=User(), user_namespace=True, keep=True)
    plans = (container_plan(spec, V2), exec_plan(launch, ()))
    for told in (plan.describe() for plan in plans):
        at = told.index("set RLIMIT_NOFILE to 1:2")
        assert told[at + 1] == "set limit 99 to 0:0"
        assert at < told.index("join the pod's user namespace") < told.index("set umask 0077")
    assert plans[1].flags == constants.PLAN_KEEP


def test_an_exec_joins_the_network_of_its_container() -> None:
    launch = ExecLaunch(container_id="c", process=PROCESS, user=User(), own_network=True)
    assert "join mount and net namespaces of process c" in exec_plan(launch, ()).describe()
