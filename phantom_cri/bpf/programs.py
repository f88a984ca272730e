"""bpf(2), include/uapi/linux/bpf.h: one function for each command that is used."""

from __future__ import annotations

import struct

from phantom_cri import native

PROG_TYPE_CGROUP_DEVICE = 15
ATTACH_CGROUP_DEVICE = 6

_PROG_LOAD, _PROG_ATTACH = 5, 8
# With ALLOW_MULTI a parent's program (systemd's DeviceAllow=) still applies: all have to allow the access.
_ALLOW_MULTI = 2
_LICENSE = b"Apache-2.0\0"


def load(kind: int, attach_type: int, instructions: bytes, name: bytes) -> int:
    """The verified program's fd, close-on-exec as all BPF fds; `name`: up to 15 bytes. Raises OSError."""
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        kind,
        len(instructions) // 8,
        native.address_of(instructions),
        native.address_of(_LICENSE),
        0,  # log_level
        0,  # log_size
        0,  # log_buf
        0,  # kern_version
        0,  # prog_flags
        name,
        0,  # prog_ifindex
        attach_type,
    )
    return native.bpf(_PROG_LOAD, bytearray(attributes))


def attach_to_cgroup(program_fd: int, attach_type: int, cgroup_fd: int) -> None:
    """Attach the program to the cgroup for the cgroup's lifetime. Raises OSError."""
    attributes = struct.pack("=IIII", cgroup_fd, program_fd, attach_type, _ALLOW_MULTI)
    native.bpf(_PROG_ATTACH, bytearray(attributes))
