"""Numbers of the kernel's and the fragment's interfaces that plans carry.

From linux/sched.h, linux/mount.h, sys/mount.h, linux/seccomp.h and phantom_cri/native/protocol.h;
tests/unit/plans/test_contract.py compares the latter.
"""

from __future__ import annotations

# namespaces (linux/sched.h)
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

NAMESPACES = {
    CLONE_NEWNS: "mount",
    CLONE_NEWPID: "pid",
    CLONE_NEWCGROUP: "cgroup",
    CLONE_NEWUTS: "uts",
    CLONE_NEWIPC: "ipc",
    CLONE_NEWNET: "net",
    CLONE_NEWUSER: "user",
    CLONE_NEWTIME: "time",
}

# mount attributes (linux/mount.h)
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_ATIME = 0x70  # the field for the access time mode
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

MOUNT_ATTRIBUTES = {
    MOUNT_ATTR_RDONLY: "read-only",
    MOUNT_ATTR_NOSUID: "nosuid",
    MOUNT_ATTR_NODEV: "nodev",
    MOUNT_ATTR_NOEXEC: "noexec",
    MOUNT_ATTR_NOATIME: "noatime",
    MOUNT_ATTR_STRICTATIME: "strictatime",
    MOUNT_ATTR_NODIRATIME: "nodiratime",
    MOUNT_ATTR_NOSYMFOLLOW: "nosymfollow",
}

# propagation (linux/mount.h)
MS_REC = 1 << 14
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

PROPAGATIONS = {
    MS_UNBINDABLE: "unbindable",
    MS_PRIVATE: "private",
    MS_SLAVE: "slave",
    MS_SHARED: "shared",
}

# the fragment's protocol (native/protocol.h)
VERSION_OLDEST = 1
VERSION_NEWEST = 1
PACKET_MAX = 4096
ID_MAX = 160
ID_SIZE = 168
MESSAGE_MIN = 248
DONATED_MAX = 240
SLOTS = 1024
PLAN_MAGIC = 0x31504850

PLAN_LOG = 1
PLAN_STDIN = 2
PLAN_TTY = 4
PLAN_KILL_REST = 8
PLAN_HOLD = 16
PLAN_KEEP = 32
PLAN_UNREAD = 64
PLAN_FLAGS = PLAN_LOG | PLAN_STDIN | PLAN_TTY | PLAN_KILL_REST | PLAN_HOLD | PLAN_KEEP | PLAN_UNREAD

KIND_ADOPT = 0
KIND_CONTAINER = 1
KIND_EXEC = 2

# flags of ops
OPEN_RECURSIVE = 1
OPEN_CREATE = 2

OVERLAY_VOLATILE = 1
OVERLAY_JOINED = 1 << 30
OVERLAY_CLASSIC = 1 << 31

ATTACH_RECURSIVE = 1
ATTACH_CREATE = 2

REMOUNT_RECURSIVE = 1

ATTRIBUTES_RECURSIVE = 1


def names(value: int, meaning: dict[int, str]) -> list[str]:
    """The names of the bits of `value`; unnamed bits come last, in hexadecimal."""
    words = [word for bit, word in meaning.items() if value & bit]
    rest = value & ~sum(meaning)
    return [*words, hex(rest)] if rest else words
