from __future__ import annotations

from typing import Any

import pytest

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import DnsConfig, SandboxConfig, SandboxMetadata, SandboxSecurity
from phantom_cri.requests.pod import check_dns, check_hostname, check_pod, checked_sysctls, sysctl_path
from tests.unit.requests.asked import namespaces


@pytest.mark.parametrize(
    "name",
    [
        "kernel.panic",
        "kernel.shm",
        "kernel.semx",
        "vm.swappiness",
        "fs.file-max",
        "netx.a",
        "kernel.domainname",
        "",
    ],
)
def test_sysctls_of_the_whole_node_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=name or "sysctls: ''"):
        checked_sysctls({name: "1"}, namespaces())


@pytest.mark.parametrize("name", ["net..ipv4", "net/../kernel/panic", "net.", "net/ipv4/\0", "/net/x"])
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(InvalidArgument, match="is not the name of a sysctl"):
        checked_sysctls({name: "1"}, namespaces())


def test_sysctls_need_the_pods_own_namespace() -> None:
    with pytest.raises(InvalidArgument, match=r"'kernel\.shmmax' is not allowed with the host's ipc"):
        checked_sysctls({"kernel.shmmax": "1"}, namespaces(ipc="node"))
    with pytest.raises(InvalidArgument, match=r"somaxconn' is not allowed with the host's network"):
        checked_sysctls({"net.core.somaxconn": "1"}, namespaces(network="node"))
    with pytest.raises(InvalidArgument, match="NUL"):
        checked_sysctls({"net.core.somaxconn": "1\0"}, namespaces())


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
        ("kernel.sem", "kernel/sem"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
    ],
)
def test_names_become_paths(name: str, path: str) -> None:
    assert sysctl_path(name) == path
    assert checked_sysctls({name: "1"}, namespaces()) == {path: "1"}


@pytest.mark.parametrize(
    "hostname", ["", "a\nb", "a\n", "a b", "-a", "a-", "a" * 65, "ä", "a/b", "a\0", "127.0.0.1 evil"]
)
def test_a_hostname_that_could_forge_a_line_is_refused(hostname: str) -> None:
    with pytest.raises(InvalidArgument, match="hostname"):
        check_hostname(hostname)


@pytest.mark.parametrize(
    ("field", "dns"),
    [
        ("servers", DnsConfig(servers=("1.1.1.1\nsearch evil",))),
        ("servers", DnsConfig(servers=("dns.example",))),
        ("servers", DnsConfig(servers=("",))),
        ("searches", DnsConfig(searches=("a\nnameserver 6.6.6.6",))),
        ("searches", DnsConfig(searches=("a b",))),
        ("searches", DnsConfig(searches=("ä",))),
        ("searches", DnsConfig(searches=("",))),
        ("options", DnsConfig(options=("ndots:5\n",))),
        ("options", DnsConfig(options=("a\r",))),
        ("options", DnsConfig(options=("a\0",))),
    ],
)
def test_a_dns_value_that_could_forge_a_line_is_refused_by_field(field: str, dns: DnsConfig) -> None:
    with pytest.raises(InvalidArgument, match=rf"dns_config\.{field}"):
        check_dns(dns)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"security": SandboxSecurity(namespaces=namespaces(network="container"))},
            "POD or NODE, not CONTAINER",
        ),
        ({"security": SandboxSecurity(namespaces=namespaces(ipc="target"))}, r"namespace_options\.ipc"),
        ({"security": SandboxSecurity(namespaces=namespaces(pid="target"))}, "TARGET is for containers"),
        ({"security": SandboxSecurity(namespaces=namespaces(user="pod"))}, "userns_options"),
        ({"sysctls": {"vm.swappiness": "1"}}, "vm.swappiness"),
        ({"hostname": "a b"}, "hostname"),
        ({"dns": DnsConfig(options=("a b",))}, r"dns_config\.options"),
    ],
)
def test_everything_of_a_pod_is_checked(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        check_pod(SandboxConfig(metadata=SandboxMetadata(name="s"), **fields))
