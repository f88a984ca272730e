"""Traffic of a pod's interfaces, from /proc/PID/net/dev of any process in its network namespace.

No thread has to enter the namespace, and nothing is opened in it (net/core/net-procfs.c).
"""

from __future__ import annotations

from phantom_cri.usage import InterfaceUsage

_LOOPBACK = "lo"
_PREFERRED = "eth0"
"""A pod's interface, both with the built-in network and with CNI."""


def read_interfaces(pid: int) -> tuple[InterfaceUsage, ...]:
    """All except the loopback, default first. Raises OSError for a process that is gone."""
    with open(f"/proc/{pid}/net/dev") as file:
        return parse_interfaces(file.read())


def parse_interfaces(text: str) -> tuple[InterfaceUsage, ...]:
    """After the heading: `eth0: BYTES PACKETS ERRS DROP FIFO FRAME COMPRESSED MULTICAST`, then as sent."""
    found = []
    for line in text.splitlines()[2:]:
        name, _, numbers = line.strip().partition(":")
        if name == _LOOPBACK:
            continue
        values = [int(number) for number in numbers.split()]
        found.append(InterfaceUsage(name, *values[:4], *values[8:12]))
    return tuple(sorted(found, key=lambda interface: interface.name != _PREFERRED))
