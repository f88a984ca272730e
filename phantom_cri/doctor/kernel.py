"""System calls used by the probes only.

Numbers from 424 on are the same on all architectures (kernel: scripts/syscall.tbl).
"""

from __future__ import annotations

import errno
import os
import platform
import socket
import struct

from phantom_cri.native import system_call, unshare

CLONE_NEW = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}
CLONE_NEWUSER = 0x10000000

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000

MOUNT_ATTR_IDMAP, OPEN_TREE_CLONE, AT_EMPTY_PATH = 0x00100000, 1, 0x1000

PIDFD_OPEN, CLONE3, FSOPEN, FSCONFIG, FSMOUNT = 434, 435, 430, 431, 432
IO_URING_SETUP, OPEN_TREE, MOUNT_SETATTR, LANDLOCK_CREATE_RULESET = 425, 428, 442, 444
SECCOMP = {"x86_64": 317, "aarch64": 277}.get(platform.machine(), -1)

FSCONFIG_SET_STRING, FSCONFIG_SET_FD, FSCONFIG_CMD_CREATE = 1, 5, 6


def filesystem(kind: str, **options: str | int) -> int:
    """A detached mount of a new filesystem by fsopen(2); returns its descriptor. `_add` stands for `+`.

    An option that is a number is a descriptor.
    """
    context = system_call(FSOPEN, kind.encode(), 0)
    for key, value in options.items():
        name = key.replace("_add", "+").encode()
        if isinstance(value, int):
            system_call(FSCONFIG, context, FSCONFIG_SET_FD, name, None, value)
        else:
            system_call(FSCONFIG, context, FSCONFIG_SET_STRING, name, value.encode(), 0)
    system_call(FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
    return system_call(FSMOUNT, context, 0, 0)


def user_namespace(first: int, count: int) -> int:
    """Descriptor of a new one: ids from 0 map to ours from `first`. A short-lived child creates it."""
    gone, stay = os.pipe()
    ready, tell = os.pipe()
    child = os.fork()  # noqa: TID251  a single-threaded process that only runs probes
    if child == 0:
        os.close(stay)
        unshare(CLONE_NEWUSER)
        os.write(tell, b"1")
        os.read(gone, 1)
        os._exit(0)
    os.close(tell)
    try:
        if not os.read(ready, 1):
            raise OSError(errno.EPERM, "cannot create a user namespace")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{name}", "w") as mapping:
                mapping.write(f"0 {first} {count}")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for end in (gone, stay, ready):
            os.close(end)
        os.waitpid(child, 0)


def mapped_tree(path: str, users: int) -> int:
    """A detached tree of `path` with its ids mapped into a user namespace (mount_setattr(2))."""
    tree = system_call(OPEN_TREE, -100, path.encode(), OPEN_TREE_CLONE | os.O_CLOEXEC)
    attributes = struct.pack("=QQQQ", MOUNT_ATTR_IDMAP, 0, 0, users)
    system_call(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, len(attributes))
    return tree


NETLINK_NETFILTER = 12
REQUEST, ACK, CREATE = 0x1, 0x4, 0x400
RTM_NEWLINK = 16
IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND, NESTED = 3, 18, 1, 0x8000
NFNL_BATCH_BEGIN, NFNL_BATCH_END, NFT_NEWTABLE, NFT_NEWCHAIN = 16, 17, 10 << 8, 10 << 8 | 3


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded to 4 bytes (netlink(7))."""
    return struct.pack("=HH", len(payload) + 4, kind) + payload + b"\0" * (-len(payload) % 4)


def message(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", len(payload) + 16, kind, flags | REQUEST, 1, 0) + payload


def netlink(protocol: int, request: bytes) -> None:
    """Send a request and read the answer; raises OSError with the kernel's errno."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as connection:
        connection.settimeout(5)
        connection.send(request)
        answer = connection.recv(65536)
    number = -struct.unpack_from("=i", answer, 16)[0]
    if number:
        raise OSError(number, os.strerror(number))


def add_link(name: str, kind: str) -> None:
    """`ip link add NAME type KIND`."""
    link = attribute(IFLA_LINKINFO | NESTED, attribute(IFLA_INFO_KIND, kind.encode()))
    header = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
    name_attribute = attribute(IFLA_IFNAME, name.encode() + b"\0")
    netlink(socket.NETLINK_ROUTE, message(RTM_NEWLINK, ACK | CREATE, header + name_attribute + link))


def add_nat_chain() -> None:
    """`nft add table ip t` and a base chain of type nat in it, as one transaction."""
    batch = struct.pack("=BB", 0, 0) + struct.pack(">H", 10)  # the nftables subsystem
    ip = struct.pack("=BBH", socket.AF_INET, 0, 0)
    hook = attribute(1, struct.pack(">I", 4)) + attribute(2, struct.pack(">i", 100))  # postrouting, srcnat
    chain = attribute(1, b"t\0") + attribute(3, b"c\0") + attribute(4 | NESTED, hook) + attribute(7, b"nat\0")
    netlink(
        NETLINK_NETFILTER,
        message(NFNL_BATCH_BEGIN, 0, batch)
        + message(NFT_NEWTABLE, CREATE, ip + attribute(1, b"t\0"))
        + message(NFT_NEWCHAIN, CREATE | ACK, ip + chain)
        + message(NFNL_BATCH_END, 0, batch),
    )
