"""CRI resources as values for cgroup files, in order, each with its request field. Pure.

0 or empty means "not set" throughout (`model.Resources`). Sources: Documentation/admin-guide/cgroup-v2.rst,
cgroup-v1/*.rst, OCI runtime spec config-linux.md.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from phantom_cri.cgroups.unified import FIELD, check_unified
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import Resources

UNLIMITED = -1
_CPU_PERIOD_DEFAULT = 100_000
_CPU_SHARES_DEFAULT = 1024

_PAGE_SIZE = re.compile(r"[1-9][0-9]{0,6}(?:KB|MB|GB)")


class Setting(NamedTuple):
    """One value for one file. `optional`: skipped if the kernel has no such file."""

    controller: str
    file: str
    value: str
    field: str
    optional: bool = False

    @property
    def names_file(self) -> bool:
        """Whether the request named the file, so that a missing file is the request's mistake."""
        return self.controller == "hugetlb" or self.field.startswith("unified")


def v1_settings(resources: Resources, *, fresh: bool) -> list[Setting]:
    """What to write on v1. `fresh`: for a new cgroup, in which the kernel's defaults need not be written.

    Raises InvalidArgument naming the field.
    """
    settings: list[Setting] = []
    if resources.unified:
        key = next(iter(resources.unified))
        raise InvalidArgument(f"{FIELD}[{key!r}]: a key of cgroup v2, and this node runs v1")
    shares = resources.cpu_shares
    if shares and not (fresh and shares == _CPU_SHARES_DEFAULT):
        settings.append(Setting("cpu", "cpu.shares", str(shares), "cpu_shares"))
    if resources.cpu_period and not (fresh and resources.cpu_period == _CPU_PERIOD_DEFAULT):
        settings.append(Setting("cpu", "cpu.cfs_period_us", str(resources.cpu_period), "cpu_period"))
    if resources.cpu_quota and not (fresh and resources.cpu_quota == UNLIMITED):
        settings.append(Setting("cpu", "cpu.cfs_quota_us", str(resources.cpu_quota), "cpu_quota"))
    settings += _cpuset(resources)
    settings += _v1_memory(resources)
    if resources.pids_limit:
        settings.append(Setting("pids", "pids.max", _or_max(resources.pids_limit), "pids_limit"))
    for limit in resources.hugepage_limits:
        settings.append(_hugetlb(limit.page_size, limit.limit, "limit_in_bytes"))
    return settings


def _v1_memory(resources: Resources) -> list[Setting]:
    limit, total = _memory_and_swap(resources)
    settings = []
    if limit:
        settings.append(Setting("memory", "memory.limit_in_bytes", str(limit), "memory_limit_in_bytes"))
    if total:
        # Absent without swap accounting (swapaccount=0): nothing to enforce then.
        settings.append(
            Setting(
                "memory",
                "memory.memsw.limit_in_bytes",
                str(total),
                "memory_swap_limit_in_bytes",
                optional=True,
            )
        )
    return settings


def v2_settings(resources: Resources, *, fresh: bool, controllers: frozenset[str]) -> list[Setting]:
    """What to write on v2; `unified` keys come last and win. Raises InvalidArgument naming the field."""
    settings: list[Setting] = []
    shares = resources.cpu_shares
    if shares and not (fresh and shares == _CPU_SHARES_DEFAULT):
        settings.append(Setting("cpu", "cpu.weight", str(cpu_weight(shares)), "cpu_shares"))
    settings += _v2_cpu_max(resources, fresh=fresh)
    settings += _cpuset(resources)
    limit, total = _memory_and_swap(resources)
    if limit:
        settings.append(Setting("memory", "memory.max", _or_max(limit), "memory_limit_in_bytes"))
    if total:
        # v2 counts swap alone, OCI memory and swap together.
        swap = total if total == UNLIMITED else total - max(limit, 0)
        settings.append(
            Setting("memory", "memory.swap.max", _or_max(swap), "memory_swap_limit_in_bytes", optional=True)
        )
    if resources.pids_limit:
        settings.append(Setting("pids", "pids.max", _or_max(resources.pids_limit), "pids_limit"))
    for huge in resources.hugepage_limits:
        settings.append(_hugetlb(huge.page_size, huge.limit, "max"))
    settings += [_unified(key, value, controllers) for key, value in resources.unified.items()]
    return settings


def _v2_cpu_max(resources: Resources, *, fresh: bool) -> list[Setting]:
    quota, period = resources.cpu_quota, resources.cpu_period
    if not quota and not period:
        return []
    if fresh and quota in (0, UNLIMITED) and period in (0, _CPU_PERIOD_DEFAULT):
        return []
    if not quota:
        # The file needs a quota before the period, and this request has none.
        return [Setting("cpu", "cpu.max", f"{'max' if fresh else KEEP_QUOTA} {period}", "cpu_period")]
    value = f"{_or_max(quota)} {period}" if period else _or_max(quota)
    return [Setting("cpu", "cpu.max", value, "cpu_quota")]


KEEP_QUOTA = "{quota}"
"""Placeholder in a `cpu.max` value for the cgroup's current quota."""


def cpu_weight(shares: int) -> int:
    """v1 shares (2 to 262144) as v2 weight (1 to 10000), so that the defaults meet: 1024 → 100.

    The curve that OCI runtimes agreed on (opencontainers/cgroups, ConvertCPUSharesToCgroupV2Value).
    """
    if shares <= 2:
        return 1
    if shares >= 262_144:
        return 10_000
    level = math.log2(shares)
    return math.ceil(10 ** ((level * level + 125 * level) / 612 - 7 / 34))


def _memory_and_swap(resources: Resources) -> tuple[int, int]:
    """(memory, memory + swap); 0 is "not set". A memory limit alone means no swap, as Kubernetes promises."""
    limit, total = resources.memory_limit, resources.memory_swap_limit
    swap = "linux.resources.memory_swap_limit_in_bytes"
    for name, value in (("memory_limit_in_bytes", limit), ("memory_swap_limit_in_bytes", total)):
        if value < UNLIMITED:
            raise InvalidArgument(f"linux.resources.{name} {value}: want bytes, or -1 for no limit")
    if not limit:
        if total > 0:
            raise InvalidArgument(f"{swap} {total}: needs a memory_limit_in_bytes, which it includes")
        return 0, total
    if 0 < total < (limit if limit != UNLIMITED else math.inf):
        raise InvalidArgument(f"{swap} {total}: below memory_limit_in_bytes {limit}, which it includes")
    return limit, total or limit


def _cpuset(resources: Resources) -> list[Setting]:
    settings = []
    if resources.cpuset_mems:
        settings.append(Setting("cpuset", "cpuset.mems", resources.cpuset_mems, "cpuset_mems"))
    if resources.cpuset_cpus:
        settings.append(Setting("cpuset", "cpuset.cpus", resources.cpuset_cpus, "cpuset_cpus"))
    return settings


def _hugetlb(page_size: str, limit: int, suffix: str) -> Setting:
    if not _PAGE_SIZE.fullmatch(page_size):
        raise InvalidArgument(
            f"linux.resources.hugepage_limits page_size {page_size!r}: want e.g. 2MB or 1GB"
        )
    if limit < 0:
        raise InvalidArgument(f"linux.resources.hugepage_limits[{page_size}] {limit}: want bytes, 0 or more")
    # The kubelet lists every page size it knows; without the controller or size there is nothing to enforce.
    return Setting(
        "hugetlb", f"hugetlb.{page_size}.{suffix}", str(limit), f"hugepage_limits[{page_size}]", optional=True
    )


def _unified(key: str, value: str, controllers: frozenset[str]) -> Setting:
    return Setting(check_unified(key, value, controllers), key, value, f"unified[{key!r}]")


def _or_max(value: int) -> str:
    return "max" if value == UNLIMITED else str(value)
