"""resolv.conf, hosts and hostname."""

from __future__ import annotations

from pathlib import Path

import pytest

from phantom_cri.model import DnsConfig
from phantom_cri.network.identity import identity_files


def test_dns_settings_replace_the_hosts(tmp_path: Path) -> None:
    dns = DnsConfig(("10.0.0.10", "fd00::a", "fe80::1%eth0"), ("ns.svc", "svc"), ("ndots:5", "edns0"))
    files = identity_files("pod", (), dns, False, tmp_path / "missing")
    assert files["resolv.conf"] == (
        b"search ns.svc svc\nnameserver 10.0.0.10\nnameserver fd00::a\nnameserver fe80::1%eth0\n"
        b"options ndots:5 edns0\n"
    )


@pytest.mark.parametrize("dns", [None, DnsConfig()])
def test_without_dns_settings_the_hosts_file_is_taken_verbatim(tmp_path: Path, dns: DnsConfig | None) -> None:
    (tmp_path / "resolv.conf").write_bytes(b"# as is\nnameserver 192.0.2.1\n")
    files = identity_files("pod", (), dns, False, tmp_path / "resolv.conf")
    assert files["resolv.conf"] == b"# as is\nnameserver 192.0.2.1\n"
    assert identity_files("pod", (), dns, False, tmp_path / "missing")["resolv.conf"] == b""


def test_the_pod_finds_itself_under_all_its_addresses() -> None:
    files = identity_files("web.example.org", ("10.88.0.2", "fd00::2"), None, False)
    lines = files["hosts"].decode().splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[-2:] == ["10.88.0.2\tweb.example.org web", "fd00::2\tweb.example.org web"]
    assert files["hostname"] == b"web.example.org\n"


def test_in_the_hosts_network_the_hosts_names_count(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_bytes(b"192.0.2.7 node\n")
    files = identity_files("node", ("192.0.2.7",), None, True, tmp_path / "none", tmp_path / "hosts")
    assert files["hosts"] == b"192.0.2.7 node\n"
