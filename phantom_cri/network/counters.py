"""What went over a pod's interfaces, by /proc/PID/net/dev: the network namespace of any process in it.

No thread enters the namespace for it, and nothing is opened in it (net/core/net-procfs.c).
"""

from __future__ import annotations

from phantom_cri.usage import InterfaceUsage

_LOOPBACK = "lo"
_PREFERRED = "eth0"
"""The interface that the built-in network and CNI alike make for a pod."""


def read_interfaces(pid: int) -> tuple[InterfaceUsage, ...]:
    """All but the loopback, the default one first. Raises OSError for a process that is gone."""
    with open(f"/proc/{pid}/net/dev") as file:
        return parse_interfaces(file.read())


def parse_interfaces(text: str) -> tuple[InterfaceUsage, ...]:
    """After the heading: `eth0: BYTES PACKETS ERRS DROP FIFO FRAME COMPRESSED MULTICAST`, sent alike."""
    found = []
    for line in text.splitlines()[2:]:
        name, _, numbers = line.strip().partition(":")
        if name == _LOOPBACK:
            continue
        values = [int(number) for number in numbers.split()]
        found.append(InterfaceUsage(name, *values[:4], *values[8:12]))
    return tuple(sorted(found, key=lambda interface: interface.name != _PREFERRED))
