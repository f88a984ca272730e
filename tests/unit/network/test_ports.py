"""Host ports: what is refused, who excludes whom, and what nftables is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantom_cri import errors
from phantom_cri.model import PortMapping
from phantom_cri.network.ports import (
    HostPort,
    PortTable,
    Target,
    add_elements,
    delete_elements,
    forwards,
    table_text,
)

IPS = ("10.88.0.2", "fd00::2")


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        (PortMapping(host_port=65536, container_port=80), "host_port 65536"),
        (PortMapping(host_port=-1, container_port=80), "host_port -1"),
        (PortMapping(host_port=80), "container_port 0"),
        (PortMapping(host_port=80, container_port=70000), "container_port 70000"),
        (PortMapping(host_port=80, container_port=80, host_ip="nowhere"), "host_ip 'nowhere'"),
        (PortMapping(host_port=80, container_port=80, host_ip="1.2.3.4 }"), "host_ip '1.2.3.4 }'"),
        (PortMapping(host_port=80, container_port=80, host_ip="224.0.0.1"), "host_ip '224.0.0.1'"),
        (PortMapping(host_port=80, container_port=80, host_ip="fe80::1%eth0"), "host_ip 'fe80::1%eth0'"),
    ],
)
def test_a_senseless_mapping_is_refused_by_name(mapping: PortMapping, words: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=words):
        forwards(IPS, [mapping])


def test_an_address_of_a_version_the_pod_lacks_is_refused() -> None:
    mapping = PortMapping(host_port=80, container_port=80, host_ip="::1")
    with pytest.raises(errors.FailedPrecondition, match="::1 is IPv6"):
        forwards(IPS[:1], [mapping])


def test_one_host_port_cannot_lead_to_two_places() -> None:
    one, two = (PortMapping(host_port=80, container_port=port) for port in (8080, 8081))
    with pytest.raises(errors.InvalidArgument, match=r"0\.0\.0\.0:80/tcp leads to two"):
        forwards(IPS, [one, two])
    assert forwards(IPS, [one, one]) == forwards(IPS, [one])


def test_what_mappings_come_to() -> None:
    assert forwards(IPS, [PortMapping(host_port=0, container_port=80)]) == {}
    assert forwards(IPS, [PortMapping("udp", 53, 5353)]) == {
        HostPort(4, "udp", "", 5353): Target("10.88.0.2", 53),
        HostPort(6, "udp", "", 5353): Target("fd00::2", 53),
    }
    assert forwards(IPS, [PortMapping("sctp", 1, 2, "0.0.0.0")]) == {
        HostPort(4, "sctp", "", 2): Target("10.88.0.2", 1)
    }
    assert forwards(IPS, [PortMapping("tcp", 1, 2, "FD00:0::7")]) == {
        HostPort(6, "tcp", "fd00::7", 2): Target("fd00::2", 1)
    }


@pytest.mark.parametrize(
    ("held", "wanted", "clash"),
    [
        ("", "", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("", "192.0.2.1", True),
        ("192.0.2.1", "", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_a_clash_names_port_and_holder(held: str, wanted: str, clash: bool) -> None:
    table = PortTable()
    table.claim("first", {HostPort(4, "tcp", held, 80): Target("10.0.0.2", 80)})
    want = {
        HostPort(4, "tcp", "", 81): Target("10.0.0.3", 81),
        HostPort(4, "tcp", wanted, 80): Target("10.0.0.3", 80),
    }
    if not clash:
        return table.claim("second", want)
    with pytest.raises(errors.AlreadyExists, match=r"80/tcp: sandbox first holds"):
        table.claim("second", want)
    assert table.held("second") == {}
    table.claim("third", {HostPort(4, "tcp", "", 81): Target("10.0.0.4", 81)})  # nothing of it was kept


def test_protocols_and_ip_versions_do_not_clash() -> None:
    table = PortTable()
    for number, (version, protocol) in enumerate([(4, "tcp"), (4, "udp"), (4, "sctp"), (6, "tcp")]):
        table.claim(f"pod{number}", {HostPort(version, protocol, "", 80): Target("10.0.0.2", 80)})
    assert len(table.all()) == 4


host_ports = st.builds(
    HostPort, st.just(4), st.just("tcp"), st.sampled_from(["", "192.0.2.1", "192.0.2.2"]), st.integers(1, 2)
)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.sets(host_ports, min_size=1, max_size=2))))
def test_the_table_is_the_sum_of_its_claims(steps: list[tuple[bool, int, set[HostPort]]]) -> None:
    table, model = PortTable(), dict[int, dict[HostPort, Target]]()
    for claim, pod, wanted in steps:
        if not claim or pod in model:
            table.release(str(pod))
            model.pop(pod, None)
            continue
        want = {host_port: Target("10.0.0.2", pod) for host_port in wanted}
        taken = [held for other in model.values() for held in other]
        clashes = any(
            a.port == b.port and (a.address == b.address or not a.address or not b.address)
            for a in want
            for b in taken
        )
        try:
            table.claim(str(pod), want)
            assert not clashes
            model[pod] = want
        except errors.AlreadyExists:
            assert clashes
    assert table.all() == {at: target for held in model.values() for at, target in held.items()}


def test_elements_as_nftables_reads_them() -> None:
    wanted = {
        HostPort(4, "tcp", "", 80): Target("10.0.0.2", 8080),
        HostPort(6, "udp", "fd00::7", 53): Target("fd00::2", 5353),
    }
    assert add_elements("phantom_x", wanted) == (
        "add element inet phantom_x any4 { tcp . 80 : 10.0.0.2 . 8080 }\n"
        "add element inet phantom_x one6 { fd00::7 . udp . 53 : fd00::2 . 5353 }\n"
    )
    assert delete_elements("phantom_x", wanted) == (
        "delete element inet phantom_x any4 { tcp . 80 }\n"
        "delete element inet phantom_x one6 { fd00::7 . udp . 53 }\n"
    )


def test_masquerade_is_a_choice_but_hairpin_is_not() -> None:
    on = table_text("phantom_x", "x", ["10.0.0.0/8"], True, {})
    off = table_text("phantom_x", "x", ["10.0.0.0/8"], False, {})
    assert 'oifname != "x"' in on and 'oifname != "x"' not in off
    assert "ct status dnat masquerade" in on and "ct status dnat masquerade" in off
