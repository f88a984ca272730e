"""OCI specs: each field that cannot be honoured is refused by name, and the usual ones are understood."""

from __future__ import annotations

import json
import resource
import stat
from typing import Any

import pytest

from phantom_cri.cgroups import DEFAULT_RULES, DeviceRule
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import HugepageLimit, Resources
from phantom_cri.plans import GivenMount, HostDevice, Io, Limit, MountRoot, Namespaces
from shim import document
from shim.document import ConsoleSize
from shim.document import read as read_document
from shim.oci_resources import merged, resources_of
from shim.oci_spec import NEW, Base, Spaces, read_bundle, read_process
from tests.unit.shim.bundles import read, usual

REFUSED: dict[str, tuple[str, Any]] = {
    "process.ioPriority": ("process.ioPriority", {"class": "IOPRIO_CLASS_IDLE", "priority": 4}),
    "process.scheduler": ("process.scheduler", {"policy": "SCHED_FIFO"}),
    "process.args": ("process.args", []),
    "process.cwd": ("process.cwd", "relative"),
    "process.env": (r"process.env\[0\]", ["NOVALUE"]),
    "process.user.umask": ("process.user.umask", 0o1000),
    "process.user.uid": ("process.user", -1),
    "process.rlimits": (r"process.rlimits\[0\].type", [{"type": "RLIMIT_TEA", "soft": 1, "hard": 1}]),
    "process.capabilities.bounding": ("process.capabilities.bounding", ["CAP_FLY"]),
    "domainname": ("domainname", "example"),
    "ociVersion": ("ociVersion", "2.0"),
    "vm": ("vm", {}),
    "hooks.prestart": ("hooks.prestart", [{"path": "/bin/true"}]),
    "hooks.poststop": ("hooks.poststop", [{"path": "/bin/true"}]),
    "linux.uidMappings": ("linux.uidMappings", [{"containerID": 0, "hostID": 1, "size": 1}]),
    "linux.intelRdt": ("linux.intelRdt", {"closID": "a"}),
    "linux.personality": ("linux.personality", {"domain": "LINUX32"}),
    "linux.timeOffsets": ("linux.timeOffsets", {}),
    "linux.netDevices": ("linux.netDevices", {}),
    "linux.rootfsPropagation": ("linux.rootfsPropagation", "unbindable"),
    "linux.cgroupsPath": ("linux.cgroupsPath", "system.slice:runc:one"),
    "linux.resources.blockIO": ("linux.resources.blockIO", {"weight": 10}),
    "linux.resources.rdma": ("linux.resources.rdma", {}),
    "linux.resources.memory.reservation": ("linux.resources.memory.reservation", 1),
    "linux.resources.memory.disableOOMKiller": ("linux.resources.memory.disableOOMKiller", True),
    "linux.resources.cpu.realtimeRuntime": ("linux.resources.cpu.realtimeRuntime", 1),
    "linux.resources.cpu.idle": ("linux.resources.cpu.idle", 1),
    "linux.devices": (r"linux.devices\[0\].path", [{"path": "/tmp/a", "type": "c"}]),
}


def changed(path: str, value: Any) -> dict[str, Any]:
    config = usual()
    *folders, last = path.split(".")
    place = config
    for name in folders:
        place = place.setdefault(name, {})
    place[last] = value
    return config


@pytest.mark.parametrize("path", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(path: str) -> None:
    named, value = REFUSED[path]
    with pytest.raises(InvalidArgument, match=named):
        read(changed(path, value))


@pytest.mark.parametrize(
    ("namespaces", "named"),
    [
        ([{"type": "pid"}], "no mount"),
        ([{"type": "mount", "path": "/proc/1/ns/mnt"}], "mount of"),
        ([{"type": "mount"}, {"type": "user"}], "user"),
        ([{"type": "mount"}, {"type": "time"}], "time"),
        ([{"type": "mount"}, {"type": "cgroup", "path": "/proc/1/ns/cgroup"}], "cgroup of"),
    ],
)
def test_namespaces_that_are_not_supported(namespaces: list[dict[str, str]], named: str) -> None:
    with pytest.raises(InvalidArgument, match=f"linux.namespaces: {named}"):
        read(changed("linux.namespaces", namespaces))


@pytest.mark.parametrize(
    "mount",
    [
        {"destination": "/dev", "type": "tmpfs", "options": ["size=1k"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["nosuid", "noexec", "nodev", "rw"]},
        {"destination": "relative", "type": "tmpfs"},
        {"destination": "/", "type": "tmpfs"},
        {"destination": "/a/../b", "type": "tmpfs"},
        {"destination": "/a", "type": "bind", "source": "/", "uidMappings": []},
    ],
)
def test_mounts_that_are_not_supported(mount: dict[str, Any]) -> None:
    config = usual()
    config["mounts"].append(mount)
    with pytest.raises(InvalidArgument, match="mounts"):
        read(config)


def test_a_rule_that_takes_a_device_back_is_refused() -> None:
    rules = [{"allow": True, "access": "rwm"}, {"allow": False, "type": "c", "major": 1, "access": "r"}]
    config = changed("linux.resources.devices", list(reversed(rules)))
    with pytest.raises(InvalidArgument, match=r"linux.resources.devices\[0\]"):
        read(config)


def test_text_that_is_no_json() -> None:
    with pytest.raises(InvalidArgument, match="Input data was truncated"):
        read_bundle(b"{", "one", "/bundle", (), terminal=False)


def test_the_usual_spec_of_ctr() -> None:
    wanted = read(usual())
    spec = wanted.spec
    assert spec.process.args == ("sleep", "100")
    assert spec.process.env == ("PATH=/bin", "A=2", "HOME=/root")
    assert spec.process.rlimits == (Limit(resource.RLIMIT_NOFILE, 512, 1024),)
    assert spec.user.groups == (0, 7)
    assert spec.policy.capabilities.bounding == spec.policy.capabilities.effective == 1 << 0 | 1 << 5
    assert spec.policy.capabilities.ambient == 0
    assert spec.policy.no_new_privs
    assert (spec.policy.masked_paths, spec.policy.readonly_paths) == (("/proc/kcore",), ("/proc/sys",))
    assert [mount.target for mount in spec.mounts] == ["/dev/shm", "/run"]
    assert spec.replaced == ("/sys/fs/cgroup", "/dev/shm")
    assert not spec.privileged
    assert spec.io == Io("given")
    assert spec.root == MountRoot((GivenMount("bind", "/bundle/rootfs", "", ("rbind",)),))
    assert wanted.spaces == Spaces(NEW, NEW, NEW, NEW)
    assert wanted.group == "one"
    assert wanted.cgroup == "/test/one"
    assert wanted.resources == Resources(cpu_shares=1024, memory_limit=1 << 20)
    assert wanted.devices == (*DEFAULT_RULES, DeviceRule("c", 10, 200, "rw"))
    assert not wanted.shows_cgroup


def test_a_container_of_a_pod() -> None:
    config = usual()
    config["annotations"] = {"io.kubernetes.cri.sandbox-id": "pod"}
    config["linux"]["namespaces"] = [
        {"type": "mount"},
        {"type": "network", "path": "/proc/7/ns/net"},
        {"type": "pid"},
    ]
    config["mounts"][5]["options"] = ["nosuid", "noexec", "nodev", "rw"]
    config["mounts"].append(
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "rw"],
        }
    )
    config["linux"]["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    config["linux"]["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 384}
    ]
    config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    wanted = read(config, terminal=True)
    assert wanted.group == "pod"
    assert wanted.spaces == Spaces(pid=NEW, network="/proc/7/ns/net")
    assert wanted.devices is None
    assert wanted.spec.privileged
    assert wanted.shows_cgroup
    assert wanted.spec.devices == (HostDevice("/dev/fuse", stat.S_IFCHR | 0o600, 10, 229, access=""),)
    assert wanted.sysctls == {"net/ipv4/ip_forward": "1"}
    assert wanted.spec.io == Io("console")


def test_a_seccomp_profile_becomes_a_filter() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"}],
    }
    assert read(changed("linux.seccomp", profile)).spec.policy.seccomp
    profile["defaultAction"] = "SCMP_ACT_DANCE"
    with pytest.raises(InvalidArgument, match=r"linux\.seccomp: defaultAction"):
        read(changed("linux.seccomp", profile))


def test_an_update_changes_what_it_names() -> None:
    old = Resources(cpu_shares=5, memory_limit=6, hugepage_limits=(HugepageLimit("2MB", 0),))
    text = json.dumps({"memory": {"limit": 7}, "hugepageLimits": [{"pageSize": "1GB", "limit": 0}]}).encode()
    new = resources_of(read_document(text, document.Resources, "resources"))
    wanted = Resources(cpu_shares=5, memory_limit=7, hugepage_limits=(HugepageLimit("1GB", 0),))
    assert merged(old, new) == wanted


def test_hooks_get_their_bundle_and_state() -> None:
    hooks = read(changed("hooks", {"createContainer": [{"path": "/bin/true", "args": ["true"]}]})).spec.hooks
    assert hooks is not None
    assert (hooks.bundle, hooks.programs[0].args) == ("/bundle", ("true",))
    assert json.loads(hooks.state)["id"] == "one"


def test_an_exec_has_a_process_of_its_own_and_the_tasks_filter() -> None:
    task = Base(
        namespaces=Namespaces(pid="own"),
        seccomp=b"filter",
        seccomp_flags=2,
        oom_score_adj=5,
        own_cgroup_namespace=True,
    )
    wanted = usual()["process"] | {"args": ["id"], "user": {"uid": 5}}
    wanted["consoleSize"] = {"height": 3, "width": 4}
    launch, console = read_process(json.dumps(wanted).encode(), "one", task, terminal=True)
    assert launch.process.args == ("id",)
    assert launch.process.env[-1] == "HOME=/"
    assert (launch.user.uid, launch.tty, launch.keep, launch.oom_score_adj) == (5, True, True, 5)
    assert (launch.policy.seccomp, launch.policy.seccomp_flags) == (b"filter", 2)
    assert launch.own_pid_namespace
    assert launch.own_cgroup_namespace
    assert not launch.own_network
    assert console == ConsoleSize(3, 4)
    wanted["scheduler"] = {}
    with pytest.raises(InvalidArgument, match="spec: scheduler"):
        read_process(json.dumps(wanted).encode(), "one", task, terminal=True)
