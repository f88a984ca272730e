"""resolv.conf, hosts and hostname of a pod, as CRI's RunPodSandbox expects them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from phantom_cri.model import DnsConfig

_HOSTS_HEAD = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def identity_files(
    hostname: str,
    ips: Sequence[str],
    dns: DnsConfig | None,
    host_network: bool,
    host_resolv_conf: Path | str = "/etc/resolv.conf",
    host_hosts: Path | str = "/etc/hosts",
) -> dict[str, bytes]:
    """File name → content. Without DNS settings the host's resolv.conf is used unchanged; a pod in the
    host's network has the host's hosts file.

    Host name and DNS settings have been checked: a newline could inject a line.
    """
    hosts = _read(host_hosts) if host_network else _hosts(hostname, ips)
    given = dns is not None and (dns.servers or dns.searches or dns.options)
    resolv_conf = _resolv_conf(dns) if dns is not None and given else _read(host_resolv_conf)
    return {"resolv.conf": resolv_conf, "hosts": hosts, "hostname": f"{hostname}\n".encode()}


def _hosts(hostname: str, ips: Sequence[str]) -> bytes:
    names = hostname if "." not in hostname else f"{hostname} {hostname.partition('.')[0]}"
    return (_HOSTS_HEAD + "".join(f"{ip}\t{names}\n" for ip in ips)).encode()


def _resolv_conf(dns: DnsConfig) -> bytes:
    lines = [f"search {' '.join(dns.searches)}"] if dns.searches else []
    lines += [f"nameserver {server}" for server in dns.servers]
    lines += [f"options {' '.join(dns.options)}"] if dns.options else []
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def _read(path: Path | str) -> bytes:
    """The host's file; empty if the host has none, as in other runtimes."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return b""
