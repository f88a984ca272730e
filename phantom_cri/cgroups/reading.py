"""Parses cgroup files of v1 and v2. Pure.

Sources: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/{memory,blkio-controller}.rst, accounting/psi.rst.
"""

from __future__ import annotations

from collections.abc import Mapping

from phantom_cri.usage import DeviceIo, MemoryUsage, Pressure, Stalls

# v1 shows "no limit" as the largest number of whole pages (PAGE_COUNTER_MAX), whatever the page size.
_UNLIMITED = (1 << 63) - (1 << 16)


def flat_keyed(content: str) -> dict[str, int]:
    """`usage_usec 12\\nuser_usec 3` as a mapping (cgroup-v2.rst, "flat keyed")."""
    return {key: int(value) for key, _, value in (line.partition(" ") for line in content.splitlines())}


def limit(content: str) -> int:
    """A limit's value, 0 for none: `max`, or v1's largest."""
    text = content.strip()
    value = 0 if text in ("", "max") else int(text)
    return 0 if value >= _UNLIMITED else value


def stalls(content: str) -> Stalls | None:
    """`some avg10=0.00 … total=0`, `full …`; microseconds become nanoseconds. None for an empty text.

    Before Linux 5.13 cpu.pressure has no `full`: waiting for a CPU cannot stall all tasks at once.
    """
    lines = {line.partition(" ")[0]: _pressure(line) for line in content.splitlines()}
    return Stalls(lines["some"], lines.get("full", Pressure())) if "some" in lines else None


def _pressure(line: str) -> Pressure:
    values = dict(word.split("=", 1) for word in line.split()[1:])
    return Pressure(
        total_ns=int(values["total"]) * 1000,
        avg10=float(values["avg10"]),
        avg60=float(values["avg60"]),
        avg300=float(values["avg300"]),
    )


def v2_memory(usage: int, stat: Mapping[str, int]) -> MemoryUsage:
    """From memory.current and memory.stat, which counts whole subtrees."""
    kernel = stat.get("kernel")  # since Linux 5.18
    if kernel is None:
        kernel = sum(stat.get(name, 0) for name in ("kernel_stack", "pagetables", "percpu", "slab"))
    return MemoryUsage(
        usage=usage,
        working_set=max(0, usage - stat.get("inactive_file", 0)),
        rss=stat.get("anon", 0),
        cache=stat.get("file", 0),
        mapped_file=stat.get("file_mapped", 0),
        kernel=kernel,
        page_faults=stat.get("pgfault", 0),
        major_page_faults=stat.get("pgmajfault", 0),
    )


def v1_memory(usage: int, stat: Mapping[str, int]) -> MemoryUsage:
    """From memory.usage_in_bytes and memory.stat, of which `total_*` counts whole subtrees."""
    own_limit = stat.get("hierarchical_memory_limit", 0)
    swap_limit = stat.get("hierarchical_memsw_limit")
    return MemoryUsage(
        usage=usage,
        working_set=max(0, usage - stat.get("total_inactive_file", 0)),
        rss=stat.get("total_rss", 0),
        cache=stat.get("total_cache", 0),
        mapped_file=stat.get("total_mapped_file", 0),
        swap=stat.get("total_swap", 0),
        page_faults=stat.get("total_pgfault", 0),
        major_page_faults=stat.get("total_pgmajfault", 0),
        limit=0 if own_limit >= _UNLIMITED else own_limit,
        swap_limit=None if swap_limit is None else 0 if swap_limit >= _UNLIMITED else swap_limit,
    )


def v2_io(content: str) -> tuple[DeviceIo, ...]:
    """io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`; a device may have no numbers yet."""
    found = []
    for line in content.splitlines():
        device, *words = line.split()
        values = {
            key: int(value) for key, _, value in (word.partition("=") for word in words) if key in _IO_KEYS
        }
        major, _, minor = device.partition(":")
        if values:
            found.append(DeviceIo(int(major), int(minor), *(values.get(key, 0) for key in _IO_KEYS)))
    return tuple(found)


_IO_KEYS = ("rbytes", "wbytes", "rios", "wios")


def v1_io(service_bytes: str, serviced: str) -> tuple[DeviceIo, ...]:
    """blkio.throttle.io_service_bytes_recursive and …io_serviced_recursive: `8:0 Read 12`, `Total 12`."""
    byte_counts, counts = _by_device(service_bytes), _by_device(serviced)
    found = []
    for device in sorted(byte_counts.keys() | counts.keys()):
        major, _, minor = device.partition(":")
        size, number = byte_counts.get(device, {}), counts.get(device, {})
        found.append(
            DeviceIo(
                int(major),
                int(minor),
                size.get("Read", 0),
                size.get("Write", 0),
                number.get("Read", 0),
                number.get("Write", 0),
            )
        )
    return tuple(found)


def _by_device(content: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for words in map(str.split, content.splitlines()):
        if len(words) == 3:
            found.setdefault(words[0], {})[words[1]] = int(words[2])
    return found
