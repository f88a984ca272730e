"""Device access on cgroup v2: the BPF program of a rule set is loaded once and attached many times."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from phantom_cri.bpf import attach_to_cgroup, load
from phantom_cri.bpf.programs import ATTACH_CGROUP_DEVICE, PROG_TYPE_CGROUP_DEVICE
from phantom_cri.cgroups.devices import DeviceRule, v2_program
from phantom_cri.errors import kernel_error

_MOST_PROGRAMS = 64


class DeviceFilters:
    """Loaded programs by rule set: most containers share one, and loading costs more than attaching."""

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
                attach_to_cgroup(program_fd, ATTACH_CGROUP_DEVICE, cgroup_fd)
            except OSError as error:
                raise kernel_error("bpf: attach the device program", error.errno or 0) from error

    def _program(self, rules: tuple[DeviceRule, ...]) -> int:
        if (known := self._programs.get(rules)) is not None:
            self._programs.move_to_end(rules)
            return known
        program = v2_program(rules)
        program_fd = load(PROG_TYPE_CGROUP_DEVICE, ATTACH_CGROUP_DEVICE, program, b"phantom_devices")
        self._programs[rules] = program_fd
        if len(self._programs) > _MOST_PROGRAMS:
            os.close(self._programs.popitem(last=False)[1])
        return program_fd

    def close(self) -> None:
        with self._lock:
            while self._programs:
                os.close(self._programs.popitem()[1])
