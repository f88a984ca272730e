# ruff: noqa: E501  (the kernel's lines as they are)
from __future__ import annotations

import os

import pytest

from phantom_cri.network.counters import parse_interfaces, read_interfaces
from phantom_cri.usage import InterfaceUsage

HEADING = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
"""
LO = "    lo: 44364342138 1611758    0    0    0     0          0         0 44364342138 1611758    0    0    0     0       0          0\n"
NET1 = "  net1:1676245339   54702    1    2    3     4          5         6  3552657   34019    7    8    9    10      11         12\n"
ETH0 = "  eth0:    4116      46    0    0    0     0          0        46      600       4    0    1    0     0       0          0\n"


def test_the_loopback_alone_is_nothing() -> None:
    assert parse_interfaces(HEADING + LO) == ()


def test_the_default_one_comes_first() -> None:
    assert parse_interfaces(HEADING + LO + NET1 + ETH0) == (
        InterfaceUsage("eth0", 4116, 46, 0, 0, 600, 4, 0, 1),
        InterfaceUsage("net1", 1676245339, 54702, 1, 2, 3552657, 34019, 7, 8),
    )


def test_a_process_that_is_gone() -> None:
    with pytest.raises(OSError):
        read_interfaces(1 << 30)
    assert all(interface.name != "lo" for interface in read_interfaces(os.getpid()))
