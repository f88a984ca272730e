"""bpf(2), as far as device access on cgroup v2 needs it: load a rule set's program once, attach it often."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from phantom_cri.cgroups.devices import DeviceRule, v2_program
from phantom_cri.errors import Unimplemented, kernel_error

# bpf(2) and include/uapi/linux/bpf.h
_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
# With ALLOW_MULTI a parent's program (systemd's DeviceAllow=) keeps its say: all of them have to agree.
_ALLOW_MULTI = 2
_SYSCALL_NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_LICENSE = b"Apache-2.0\0"
_MOST_PROGRAMS = 64

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    """The call's result; raises OSError."""
    number = _SYSCALL_NUMBER.get(platform.machine())
    if number is None:
        raise Unimplemented(f"device rules on cgroup v2: no bpf(2) number known for {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(_libc.syscall(number, command, buffer, len(attributes)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def load(program: bytes) -> int:
    """The verified program's fd (close-on-exec, as all BPF fds are). Raises OSError."""
    code = ctypes.create_string_buffer(program, len(program))
    license_text = ctypes.create_string_buffer(_LICENSE)
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        _TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(code),
        ctypes.addressof(license_text),
        0,  # log_level
        0,  # log_size
        0,  # log_buf
        0,  # kern_version
        0,  # prog_flags
        b"phantom_devices",
        0,  # prog_ifindex
        _ATTACH_CGROUP_DEVICE,
    )
    return _bpf(_PROG_LOAD, attributes)


def attach(program_fd: int, cgroup_fd: int) -> None:
    """The program decides over the cgroup's devices from now on, as long as it lives. Raises OSError."""
    _bpf(_PROG_ATTACH, struct.pack("=IIII", cgroup_fd, program_fd, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))


class DeviceFilters:
    """Loaded programs by rule set: nearly all containers share one, and loading costs more than attaching."""

    def __init__(self) -> None:
        self._programs: OrderedDict[tuple[DeviceRule, ...], int] = OrderedDict()
        self._lock = Lock()

    def apply(self, rules: Sequence[DeviceRule], cgroup_fd: int) -> None:
        """Attach the rules' program. Raises Internal naming step and errno, InvalidArgument for a rule."""
        with self._lock:
            try:
                program_fd = self._program(tuple(rules))
            except OSError as error:
                raise kernel_error("bpf: load the device program", error.errno or 0) from error
            try:
                attach(program_fd, cgroup_fd)
            except OSError as error:
                raise kernel_error("bpf: attach the device program", error.errno or 0) from error

    def _program(self, rules: tuple[DeviceRule, ...]) -> int:
        if (known := self._programs.get(rules)) is not None:
            self._programs.move_to_end(rules)
            return known
        program_fd = load(v2_program(rules))
        self._programs[rules] = program_fd
        if len(self._programs) > _MOST_PROGRAMS:
            os.close(self._programs.popitem(last=False)[1])
        return program_fd

    def close(self) -> None:
        with self._lock:
            while self._programs:
                os.close(self._programs.popitem()[1])
