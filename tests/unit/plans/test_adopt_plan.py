from __future__ import annotations

from phantom_cri.plans import claim_plan, spawn_plan
from tests.unit.plans.decoder import decode


def test_claim() -> None:
    assert claim_plan("web", {"net/core/somaxconn": "1024"}).describe() == [
        "set the host name web",
        "set sysctl net/core/somaxconn to '1024'",
    ]
    assert claim_plan(None, {}).describe() == []


def test_birth() -> None:
    plan = spawn_plan(b"\x10\0\0\0" * 4, procs=2)
    assert plan.describe() == [
        "set the OOM score -998",
        "enter procs0",
        "enter procs1",
        "wire the network, 16 bytes of rtnetlink",
        "set sysctl net/ipv4/ip_unprivileged_port_start to '0'",
        "set sysctl net/ipv4/ping_group_range to '0 2147483647'",
    ]
    assert decode(plan.encode()).header["slot_count"] == 2
    assert spawn_plan().describe() == ["set the OOM score -998"]
