"""The probes, in order: read-only ones first, those that change this process last."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from phantom_cri import native
from phantom_cri.codec import Record
from phantom_cri.doctor import Check, kernel
from phantom_cri.doctor.btf import function_id
from phantom_cri.errors import errno_name

_NEEDED_CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
    "CAP_MKNOD": 27,
}
_BPF_PROG_LOAD = 5
_GPL = b"GPL\0"  # BPF_LSM programs have to be GPL
# Covered by a tmpfs in a mount namespace of our own before anything is made in it.
_SCRATCH = "/tmp"  # noqa: S108


class Degraded(Exception):
    """A fallback is used: the text says what was found, the probe's `instead` names the fallback."""


class Lacking(Exception):
    """The feature is missing; found without an error from the kernel."""


class Probe(Record, frozen=True):
    """`run` returns what it found, or raises Degraded, Lacking or OSError; `instead`: the fallback, if any.

    used: False for a feature that this version does not use.
    """

    name: str
    run: Callable[[], str]
    instead: str = ""
    required: bool = False
    used: bool = True


def attempt(probe: Probe) -> Check:
    if not probe.used:
        return Check(probe.name, "unused", f"{_found(probe)}; not used by this version")
    try:
        return Check(probe.name, "ok", probe.run(), probe.required)
    except Degraded as shortfall:
        found = str(shortfall)
    except (OSError, Lacking) as error:
        found = _reason(error)
        if not probe.instead:
            return Check(probe.name, "missing", found, probe.required)
    return Check(probe.name, "degraded", f"{found}: {probe.instead}", probe.required)


def _found(probe: Probe) -> str:
    try:
        return probe.run()
    except Degraded as shortfall:
        return str(shortfall)
    except (OSError, Lacking) as error:
        return _reason(error)


def _reason(error: OSError | Lacking) -> str:
    if isinstance(error, Lacking):
        return str(error)
    found = f"{errno_name(error.errno or 0)} ({error.strerror})"
    return found if os.geteuid() == 0 else f"{found}, run as root"


def kernel_release() -> str:
    release, machine = os.uname().release, platform.machine()
    if kernel.SECCOMP < 0:
        raise Lacking(f"no system call numbers known for {machine}")
    return f"{release} {machine}"


def privileges() -> str:
    effective = int(_field("/proc/self/status", "CapEff"), 16)
    lacking = [name for name, bit in _NEEDED_CAPABILITIES.items() if not effective >> bit & 1]
    if lacking:
        raise Lacking(f"lacks {', '.join(lacking)}")
    return "all capabilities that pods need"


def cgroups() -> str:
    kinds: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split()[0]
        if kind in ("cgroup", "cgroup2"):
            kinds.setdefault(kind, before.split()[4])
    if "cgroup" not in kinds and "cgroup2" not in kinds:
        raise Lacking("no cgroup hierarchy is mounted")
    for line in Path("/proc/cgroups").read_text().splitlines()[1:]:
        name, hierarchy, _, enabled = line.split()
        if name == "memory" and enabled == "1" and hierarchy == "0" and "cgroup2" in kinds:
            return f"version 2 at {kinds['cgroup2']}"
    raise Degraded("version 1 and 2 (hybrid)" if "cgroup2" in kinds else "version 1, without pressure")


def clone() -> str:
    try:
        native.system_call(kernel.CLONE3, None, 0)
    except OSError as error:
        if error.errno != 22:  # EINVAL: the call exists and refused a size of 0
            raise
    os.close(native.system_call(kernel.PIDFD_OPEN, os.getpid(), 0))
    return "clone3, pidfd_open"


def landlock() -> str:
    return f"ABI {native.system_call(kernel.LANDLOCK_CREATE_RULESET, None, 0, 1)}"


def apparmor() -> str:
    """The default profile is loaded by the host's apparmor_parser, in the host's version of the language."""
    try:
        enabled = Path("/sys/module/apparmor/parameters/enabled").read_text().strip() == "Y"
    except OSError:
        enabled = False
    if not enabled:
        raise Lacking("not enabled in this kernel")
    if shutil.which("apparmor_parser") is None:
        raise Degraded("enabled, but there is no apparmor_parser: only profiles that are loaded already")
    return "profiles can be loaded"


def selinux() -> str:
    """As libselinux decides: this process has a context, and not the one before any policy."""
    try:
        context = Path("/proc/self/attr/current").read_text().rstrip("\0\n")
        descriptor = os.open("/sys/fs/selinux/context", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        raise Lacking("not enabled in this kernel") from None
    try:
        os.write(descriptor, context.encode())
    finally:
        os.close(descriptor)
    if context == "kernel":
        raise Lacking("enabled, but no policy is loaded")
    enforces = Path("/sys/fs/selinux/enforce").read_text().strip() == "1"
    return f"{'enforcing' if enforces else 'permissive'}, this process is {context}"


def pressure() -> str:
    """The whole node's; cgroups have pressure files if the node has (Documentation/accounting/psi.rst)."""
    Path("/proc/pressure/cpu").read_text()
    return "stalls are counted"


def pressure_triggers() -> str:
    """Without CAP_SYS_RESOURCE a window must be a multiple of 2 s (Documentation/accounting/psi.rst)."""
    descriptor = os.open("/proc/pressure/cpu", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"some 150000 1000000\0")
        return "triggers with any window"
    except OSError:
        os.write(descriptor, b"some 150000 2000000\0")
        raise Degraded("triggers only with windows of whole 2 s") from None
    finally:
        os.close(descriptor)


def io_uring() -> str:
    os.close(native.system_call(kernel.IO_URING_SETUP, 1, bytearray(120)))
    return "rings can be made"


def oom_score() -> str:
    file = Path("/proc/self/oom_score_adj")
    now = int(file.read_text())
    try:
        file.write_text("-999")
    except OSError:
        raise Degraded(f"cannot be lowered below {now}") from None
    file.write_text(str(now))
    return "can be lowered"


def criu() -> str:
    """Runs `criu check`, which tests what a dump needs."""
    path = shutil.which("criu")
    if not path:
        raise Lacking("criu is not installed")
    done = subprocess.run([path, "check"], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise Lacking(f"{path} check: {(done.stdout + done.stderr).strip().splitlines()[-1:]}")
    return path


def namespaces() -> str:
    for name, flag in kernel.CLONE_NEW.items():
        try:
            native.unshare(flag)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: {name} namespace") from None
    native.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    native.mount("tmpfs", _SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    return ", ".join(kernel.CLONE_NEW)


def mount_interface() -> str:
    os.close(kernel.filesystem("tmpfs"))
    return "fsopen, fsconfig, fsmount"


def overlayfs() -> str:
    folders = {name: f"{_SCRATCH}/{name}" for name in ("lower", "upper", "work")}
    _in_own_scratch()
    for folder in folders.values():
        os.mkdir(folder)
    upper = {"upperdir": folders["upper"], "workdir": folders["work"]}
    try:
        os.close(kernel.filesystem("overlay", lowerdir_add=folders["lower"], **upper))
        return "lowerdir+: any number of layers"
    except OSError:
        os.close(kernel.filesystem("overlay", lowerdir=folders["lower"], **upper))
        raise Degraded("no lowerdir+") from None


def idmapped_mounts() -> str:
    """On a tmpfs, as the kubelet's volumes with secrets are (Linux 6.3); and as layers of an overlay."""
    folders = {name: f"{_SCRATCH}/mapped-{name}" for name in ("lower", "upper", "work")}
    _in_own_scratch()
    for folder in folders.values():
        os.mkdir(folder)
    tree = kernel.mapped_tree(folders["lower"], kernel.user_namespace(1 << 16, 1 << 16))
    try:
        upper = {"upperdir": folders["upper"], "workdir": folders["work"]}
        os.close(kernel.filesystem("overlay", lowerdir_add=tree, **upper))
    except OSError:  # Linux before 6.13
        return "layers of images too, attached one by one"
    return "layers of images too"


def bridge() -> str:
    _in_own_network()
    kernel.add_link("br0", "bridge")
    kernel.add_link("ve0", "veth")
    return "bridge and veth"


def nftables() -> str:
    _in_own_network()
    kernel.add_nat_chain()
    return "tables with nat chains"


def ipv6() -> str:
    if Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text().strip() != "0":
        raise Lacking("switched off by net.ipv6.conf.all.disable_ipv6")
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    return "sockets can be made"


def bpf_lsm() -> str:
    """The list of LSMs needs securityfs; loading a program shows whether this process may use BPF LSM."""
    _in_own_scratch()
    if not os.path.ismount("/sys/kernel/security"):
        native.mount("securityfs", "/sys/kernel/security", "securityfs")
    modules = Path("/sys/kernel/security/lsm").read_text().strip()
    if "bpf" not in modules.split(","):
        raise Lacking(f"lsm={modules} lacks bpf")
    hook = function_id("bpf_lsm_bprm_check_security")
    program = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # r0 = 0; exit
    where, terms = native.address_of(program), native.address_of(_GPL)
    request = struct.pack("=IIQQ44xI36xI4x", 29, 2, where, terms, 27, hook)  # PROG_TYPE_LSM, BPF_LSM_MAC
    os.close(native.bpf(_BPF_PROG_LOAD, bytearray(request)))
    return f"lsm={modules}"


def seccomp() -> str:
    """Loads a filter that allows everything, so later probes are not affected."""
    program = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # return ALLOW
    filter_program = struct.pack("=HxxxxxxQ", 1, native.address_of(program))
    native.system_call(kernel.SECCOMP, 1, 0, filter_program)
    return "filters can be loaded"


def user_namespaces() -> str:
    native.unshare(kernel.CLONE_NEWUSER)
    return "can be made"


def _field(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    raise Lacking(f"{file} has no {name}")


def _in_own_scratch() -> None:
    """Raise unless in our own mount namespace: the following probes make folders and mounts."""
    _own("mnt")
    if not os.path.ismount(_SCRATCH):
        raise Lacking("not tried: no mount namespace could be created")


def _in_own_network() -> None:
    """Raise unless in our own network namespace: the following probes add links and rules."""
    _own("net")


def _own(kind: str) -> None:
    if os.readlink(f"/proc/self/ns/{kind}") == _NAMESPACES_AT_START[kind]:
        raise Lacking(f"not tried: no {kind} namespace could be created")


_NAMESPACES_AT_START = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net")}

PROBES = (
    Probe("kernel", kernel_release, required=True),
    Probe("privileges", privileges, required=True),
    Probe(
        "cgroups",
        cgroups,
        instead="processes join by writing to each controller",
        required=True,
    ),
    Probe("processes", clone, required=True),
    Probe("AppArmor", apparmor, instead="containers run without a profile, a requested one is refused"),
    Probe("SELinux", selinux, instead="containers run without labels, requested ones are ignored"),
    Probe("pressure (PSI)", pressure, instead="stats have no pressure values"),
    Probe("OOM score", oom_score, instead="lower values are raised to that, and reported so"),
    Probe("CRIU", criu, instead="CheckpointContainer returns UNIMPLEMENTED"),
    Probe("PSI triggers", pressure_triggers, used=False),
    Probe("Landlock", landlock, used=False),
    Probe("io_uring", io_uring, used=False),
    Probe("namespaces", namespaces, required=True),
    Probe("mount interface", mount_interface, required=True),
    Probe(
        "overlayfs",
        overlayfs,
        required=True,
        instead="the layers of an image must fit into one page of options",
    ),
    Probe("idmapped mounts", idmapped_mounts, instead="pods with hostUsers: false are refused"),
    Probe("bridge", bridge, required=True),
    Probe("nftables", nftables, instead="no host ports and no masquerading"),
    Probe("IPv6", ipv6, instead="pods get IPv4 addresses only"),
    Probe("BPF LSM", bpf_lsm, used=False),
    Probe("seccomp", seccomp, required=True),
    Probe("user namespaces", user_namespaces, instead="pods with hostUsers: false are refused"),
)
