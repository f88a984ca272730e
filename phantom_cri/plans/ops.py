"""The ops of plans: their fields, descriptions and encoding.

`phantom_cri/native/ops.def` is the only table of ops; `check_table` compares these classes with it when the
module is imported.
"""

from __future__ import annotations

import re
import resource
import stat
from collections.abc import Sequence

from phantom_cri.errors import Internal
from phantom_cri.plans import constants
from phantom_cri.plans.encoding import ENCODERS
from phantom_cri.plans.labels import ExecLabel as ExecLabel
from phantom_cri.plans.labels import FileLabel as FileLabel
from phantom_cri.plans.labels import MountLabel as MountLabel
from phantom_cri.plans.op import Op as Op
from phantom_cri.plans.op import Slots, content, listed, namespaces_in_words
from phantom_cri.plans.op_table import read_table


class JoinNs(Op, frozen=True):
    number = 1
    signature = "uu"
    slot: int
    nstypes: int

    def describe(self, slots: Slots) -> str:
        return f"join {namespaces_in_words(self.nstypes)} of {content(self.slot, slots)}"


class JoinProcess(Op, frozen=True):
    number = 2
    signature = "su"
    process: str
    nstypes: int

    def describe(self, slots: Slots) -> str:
        return f"join {namespaces_in_words(self.nstypes)} of process {self.process}"


class JoinFragment(Op, frozen=True):
    number = 3
    signature = "u"
    nstypes: int

    def describe(self, slots: Slots) -> str:
        return f"join {namespaces_in_words(self.nstypes)} of the fragment"


class Unshare(Op, frozen=True):
    number = 4
    signature = "u"
    nstypes: int

    def describe(self, slots: Slots) -> str:
        return f"new {namespaces_in_words(self.nstypes)}"


class CgroupProcs(Op, frozen=True):
    number = 5
    signature = "u"
    slot: int

    def describe(self, slots: Slots) -> str:
        return f"enter {content(self.slot, slots)}"


class UserNamespace(Op, frozen=True):
    """Its ids from 0 on are the host's from `uid` and `gid` on; `namespaces`: CLONE_NEW* that it owns."""

    number = 6
    signature = "uuuuu"
    uid: int
    uid_count: int
    gid: int
    gid_count: int
    namespaces: int

    def describe(self, slots: Slots) -> str:
        users, groups = f"users {self.uid}+{self.uid_count}", f"groups {self.gid}+{self.gid_count}"
        return f"new user namespace of {users}, {groups} with {namespaces_in_words(self.namespaces)}"


class JoinUser(Op, frozen=True):
    number = 7
    signature = ""

    def describe(self, slots: Slots) -> str:
        return "join the pod's user namespace"


class FilesAsRoot(Op, frozen=True):
    number = 8
    signature = ""

    def describe(self, slots: Slots) -> str:
        return "make files as the root of the pod's user namespace"


class OpenTree(Op, frozen=True):
    """`flags`: OPEN_*. Described as the source of a bind."""

    number = 10
    signature = "usu"
    slot: int
    path: str
    flags: int = 0

    def label(self) -> tuple[int, str]:
        return self.slot, f"bind {self.path}"

    def describe(self, slots: Slots) -> str:
        how = constants.names(
            self.flags,
            {
                constants.OPEN_RECURSIVE: "with its submounts",
                constants.OPEN_CREATE: "made if missing",
            },
        )
        return f"open {self.path}{listed(how)}"


class Overlay(Op, frozen=True):
    """`lower`: top first; an empty `upper` makes it read-only."""

    number = 11
    signature = "uvssu"
    slot: int
    lower: tuple[str, ...]
    upper: str
    work: str
    flags: int = 0

    def label(self) -> tuple[int, str]:
        return self.slot, "the image's root" if self.upper else "an image"

    def describe(self, slots: Slots) -> str:
        under = f"{self.upper} over " if self.upper else ""
        return f"overlay {under}{':'.join(self.lower)}"


class NewFs(Op, frozen=True):
    number = 12
    signature = "usvu"
    slot: int
    type: str
    options: tuple[str, ...] = ()
    attributes: int = 0

    def label(self) -> tuple[int, str]:
        return self.slot, f"mount {self.type}"

    def describe(self, slots: Slots) -> str:
        how = [*self.options, *constants.names(self.attributes, constants.MOUNT_ATTRIBUTES)]
        return f"new {self.type}{listed(how)}"


class OverlayMapped(Overlay, frozen=True):
    """As `Overlay`, with the layers' ids mapped into the pod's user namespace; not those of `upper`."""

    number = 13


class OverlayWith(Op, frozen=True):
    """As `Overlay`, with further `options` of overlayfs, as "index=off"; none has a comma."""

    number = 16
    signature = "uvssvu"
    slot: int
    lower: tuple[str, ...]
    upper: str
    work: str
    options: tuple[str, ...]
    flags: int = 0

    def label(self) -> tuple[int, str]:
        return self.slot, "the image's root" if self.upper else "an image"

    def describe(self, slots: Slots) -> str:
        plain = Overlay(self.slot, self.lower, self.upper, self.work)
        return f"{plain.describe(slots)}{listed(self.options)}"


class MapIds(Op, frozen=True):
    number = 14
    signature = "u"
    slot: int

    def describe(self, slots: Slots) -> str:
        return f"map the ids of {content(self.slot, slots)}"


class Attributes(Op, frozen=True):
    """Of a mount not attached yet. `attributes`: MOUNT_ATTR_* to set; `flags`: ATTRIBUTES_RECURSIVE."""

    number = 17
    signature = "uuu"
    slot: int
    attributes: int
    flags: int = 0

    def describe(self, slots: Slots) -> str:
        how = constants.names(self.attributes, constants.MOUNT_ATTRIBUTES)
        also = " with its submounts" if self.flags & constants.ATTRIBUTES_RECURSIVE else ""
        return f"make {content(self.slot, slots)}{listed(how)}{also}"


class Root(Op, frozen=True):
    number = 20
    signature = "u"
    slot: int

    def describe(self, slots: Slots) -> str:
        return f"{content(self.slot, slots)} as root"


class Attach(Op, frozen=True):
    """`attributes`: MOUNT_ATTR_* to set; `propagation`: MS_* or 0; `flags`: ATTACH_*."""

    number = 21
    signature = "usuuu"
    slot: int
    target: str
    attributes: int = 0
    propagation: int = 0
    flags: int = 0

    def describe(self, slots: Slots) -> str:
        how = constants.names(self.attributes, constants.MOUNT_ATTRIBUTES)
        if self.flags & constants.ATTACH_RECURSIVE and how:
            how = [f"{how[0]} with its submounts", *how[1:]]
        kind = self.propagation & ~constants.MS_REC
        if kind & ~constants.MS_PRIVATE:
            how += constants.names(kind, constants.PROPAGATIONS)
        return f"{content(self.slot, slots)} on {self.target}{listed(how)}"


class Mkdir(Op, frozen=True):
    number = 22
    signature = "suuu"
    path: str
    mode: int
    uid: int = 0
    gid: int = 0

    def describe(self, slots: Slots) -> str:
        return f"make directory {self.path} {self.mode:04o} {self.uid}:{self.gid}"


class Mknod(Op, frozen=True):
    """`mode` includes S_IFCHR, S_IFBLK or S_IFIFO."""

    number = 23
    signature = "suuuuu"
    path: str
    mode: int
    major: int
    minor: int
    uid: int = 0
    gid: int = 0

    def describe(self, slots: Slots) -> str:
        kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}.get(self.mode & ~0o7777, "?")
        permissions = f"{self.mode & 0o7777:04o} {self.uid}:{self.gid}"
        return f"make device {self.path} {kind} {self.major}:{self.minor} {permissions}"


class Symlink(Op, frozen=True):
    number = 24
    signature = "ss"
    target: str
    path: str

    def describe(self, slots: Slots) -> str:
        return f"symlink {self.path} to {self.target}"


class Mask(Op, frozen=True):
    number = 25
    signature = "s"
    path: str

    def describe(self, slots: Slots) -> str:
        return f"mask {self.path}"


class Readonly(Op, frozen=True):
    number = 26
    signature = "s"
    path: str

    def describe(self, slots: Slots) -> str:
        return f"make {self.path} read-only"


class Remount(Op, frozen=True):
    """`flags`: REMOUNT_RECURSIVE."""

    number = 27
    signature = "suu"
    path: str
    attributes: int
    flags: int = 0

    def describe(self, slots: Slots) -> str:
        how = constants.names(self.attributes, constants.MOUNT_ATTRIBUTES)
        also = " with its submounts" if self.flags & constants.REMOUNT_RECURSIVE else ""
        return f"remount {self.path}{listed(how)}{also}"


class Pivot(Op, frozen=True):
    number = 28
    signature = ""

    def describe(self, slots: Slots) -> str:
        return "pivot into the root"


class Host(Op, frozen=True):
    number = 29
    signature = "us"
    slot: int
    bundle: str

    def describe(self, slots: Slots) -> str:
        return f"show the root to the node's programs, at {self.bundle}/rootfs"


class Hook(Op, frozen=True):
    """`state`: for its stdin; `timeout`: seconds, 0 for none."""

    number = 38
    signature = "sbvvu"
    path: str
    state: bytes
    argv: tuple[str, ...]
    envp: tuple[str, ...] = ()
    timeout: int = 0

    def describe(self, slots: Slots) -> str:
        return f"run hook {self.path}{listed([' '.join(self.argv[1:])])}"


class Hostname(Op, frozen=True):
    number = 30
    signature = "s"
    name: str

    def describe(self, slots: Slots) -> str:
        return f"set the host name {self.name}"


class Sysctl(Op, frozen=True):
    """`path` below /proc/sys, with slashes."""

    number = 31
    signature = "ss"
    path: str
    value: str

    def describe(self, slots: Slots) -> str:
        return f"set sysctl {self.path} to {self.value!r}"


class Netlink(Op, frozen=True):
    """`messages`: rtnetlink requests with NLM_F_ACK, concatenated."""

    number = 32
    signature = "b"
    messages: bytes

    def describe(self, slots: Slots) -> str:
        return f"wire the network, {len(self.messages)} bytes of rtnetlink"


class OomScore(Op, frozen=True):
    number = 33
    signature = "i"
    score: int

    def describe(self, slots: Slots) -> str:
        return f"set the OOM score {self.score}"


_LIMITS = {
    getattr(resource, name): name
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"  # another name for NOFILE
}


class Rlimit(Op, frozen=True):
    number = 34
    signature = "uuu"
    resource: int
    soft: int
    hard: int

    def describe(self, slots: Slots) -> str:
        name = _LIMITS.get(self.resource, f"limit {self.resource}")
        return f"set {name} to {self.soft}:{self.hard}"


class Umask(Op, frozen=True):
    number = 35
    signature = "u"
    mask: int

    def describe(self, slots: Slots) -> str:
        return f"set umask {self.mask:04o}"


class NoNewPrivs(Op, frozen=True):
    number = 40
    signature = ""

    def describe(self, slots: Slots) -> str:
        return "set no_new_privs"


class Bounding(Op, frozen=True):
    number = 41
    signature = "u"
    capabilities: int

    def describe(self, slots: Slots) -> str:
        return f"limit capabilities to {self.capabilities:#x}"


class Ids(Op, frozen=True):
    """`groups`: u32 little endian each, as `pack_groups` makes them."""

    number = 42
    signature = "uub"
    uid: int
    gid: int
    groups: bytes = b""

    def describe(self, slots: Slots) -> str:
        groups = memoryview(self.groups).cast("I").tolist()
        return f"become user {self.uid}:{self.gid}{listed([str(group) for group in groups], ' groups ')}"


class Capabilities(Op, frozen=True):
    number = 43
    signature = "uuuu"
    effective: int
    permitted: int
    inheritable: int
    ambient: int

    def describe(self, slots: Slots) -> str:
        sets = f"effective {self.effective:#x}, permitted {self.permitted:#x}"
        return f"set capabilities {sets}, inheritable {self.inheritable:#x}, ambient {self.ambient:#x}"


class Seccomp(Op, frozen=True):
    """`filter`: struct sock_filter[]; `mode`: SECCOMP_FILTER_FLAG_*."""

    number = 44
    signature = "bu"
    filter: bytes
    mode: int = 0

    def describe(self, slots: Slots) -> str:
        return f"load a seccomp filter of {len(self.filter) // 8} instructions"


class Chdir(Op, frozen=True):
    number = 45
    signature = "s"
    path: str

    def describe(self, slots: Slots) -> str:
        return f"change directory to {self.path}"


class Exec(Op, frozen=True):
    number = 46
    signature = "svv"
    path: str
    argv: tuple[str, ...]
    envp: tuple[str, ...] = ()

    def describe(self, slots: Slots) -> str:
        return f"exec {' '.join(self.argv)}"


def pack_groups(groups: Sequence[int]) -> bytes:
    return b"".join([group.to_bytes(4, "little") for group in groups])


OPS: dict[int, type[Op]] = {op.number: op for op in (*Op.__subclasses__(), *Overlay.__subclasses__())}


def check_table() -> None:
    """Raises Internal if a class differs from ops.def; sets the other columns on each class."""
    theirs = read_table()
    for number in sorted(OPS.keys() | theirs.keys()):
        row, ours = theirs.get(number), _row_of(number)
        if row is None or ours != row[:3] or bool(row.flags) != ("flags" in row.fields):
            raise Internal(f"op {number}: ops.def says {row}, ops.py {ours}")
        kind = OPS[number]
        encoders = [ENCODERS[letter] for letter in kind.signature]
        kind.op_name = row.name
        kind.layout = tuple(zip(kind.__struct_fields__, encoders, strict=True))
        kind.known_flags = sum(getattr(constants, flag.removeprefix("PH_OP_")) for flag in row.flags)


def _row_of(number: int) -> tuple[str, str, tuple[str, ...]] | None:
    kind = OPS.get(number)
    if kind is None:
        return None
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).upper()
    return name, kind.signature, kind.__struct_fields__


check_table()
