"""The limits and devices of an OCI spec, for cgroups."""

from __future__ import annotations

import stat
from typing import Literal, cast

from phantom_cri import cgroups, codec, plans
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import HugepageLimit, Resources
from shim import document

_FIELD = "linux.resources"
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK}


def resources_of(wanted: document.Resources) -> Resources:
    """What `Cgroups.check` has still to look at."""
    return Resources(
        cpu_period=wanted.cpu.period,
        cpu_quota=wanted.cpu.quota,
        cpu_shares=wanted.cpu.shares,
        cpuset_cpus=wanted.cpu.cpus,
        cpuset_mems=wanted.cpu.mems,
        memory_limit=wanted.memory.limit,
        memory_swap_limit=wanted.memory.swap,
        pids_limit=wanted.pids.limit,
        hugepage_limits=tuple(HugepageLimit(one.page_size, one.limit) for one in wanted.hugepage_limits),
        unified=wanted.unified,
    )


def merged(old: Resources, new: Resources) -> Resources:
    """What is set in `new`, else as in `old`."""
    given = {name: getattr(new, name) for name in Resources.__struct_fields__}
    return codec.replace(old, **{name: value for name, value in given.items() if value})


def device_rules(wanted: document.Resources) -> tuple[cgroups.DeviceRule, ...] | None:
    """What may be used beside what every container may; None for everything.

    Raises InvalidArgument for a rule that takes back something: only "nothing", at first, can be said so.
    """
    rules: list[cgroups.DeviceRule] = []
    for index, rule in enumerate(wanted.devices):
        is_any = rule.type in ("a", "") and rule.major in (None, -1) and rule.minor in (None, -1)
        is_all = is_any and set(rule.access or "rwm") == set("rwm")
        if not rule.allow and (index > 0 or not is_all):
            raise InvalidArgument(f"{_FIELD}.devices[{index}]: a rule that forbids after one that allows")
        if rule.allow and is_all:
            return None
        if rule.allow:
            rules.append(_rule(rule, f"{_FIELD}.devices[{index}]"))
    return (*cgroups.DEFAULT_RULES, *(rule for rule in rules if rule not in cgroups.DEFAULT_RULES))


def _rule(wanted: document.DeviceRule, field: str) -> cgroups.DeviceRule:
    if wanted.type not in ("a", "b", "c"):
        raise InvalidArgument(f"{field}.type: {wanted.type!r}: want a, b or c")
    kind = cast(Literal["a", "b", "c"], wanted.type)
    major, minor = (None if number == -1 else number for number in (wanted.major, wanted.minor))
    rule = cgroups.DeviceRule(kind, major, minor, wanted.access)
    rule.check()
    return rule


def devices_of(wanted: tuple[document.Device, ...]) -> tuple[plans.HostDevice, ...]:
    """Nodes to make beside the usual ones. Raises InvalidArgument naming the index and the value."""
    devices = []
    for index, device in enumerate(wanted):
        if device.type not in _KINDS:
            raise InvalidArgument(f"linux.devices[{index}].type: {device.type!r}: want b, c or u")
        if not device.path.startswith("/dev/"):
            raise InvalidArgument(f"linux.devices[{index}].path: {device.path!r} is not below /dev")
        mode = _KINDS[device.type] | device.file_mode & 0o7777
        devices.append(
            plans.HostDevice(device.path, mode, device.major, device.minor, device.uid, device.gid, "")
        )
    return tuple(devices)
