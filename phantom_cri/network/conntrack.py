"""Deletes the conntrack flows of a UDP host port, so that its next packet uses the current rules.

A client that keeps sending from one source port keeps its flow alive: created before the host port was
opened, it would bypass the pod; created for a removed pod, its packets would be lost. TCP does not need this:
its next connection is a new flow.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from phantom_cri.network import netlink as nl
from phantom_cri.network.ports import HostPort

_NETLINK_NETFILTER = 12
_CT_DELETE = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE (nfnetlink_conntrack.h)
_CTA_TUPLE_ORIG, _CTA_FILTER = 1, 25
_CTA_TUPLE_PROTO, _CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 2, 1, 3
_CTA_FILTER_ORIG_FLAGS, _CTA_FILTER_REPLY_FLAGS = 1, 2
_BY_PROTOCOL, _BY_DESTINATION_PORT = 1 << 3, 1 << 5  # CTA_FILTER_F_* (net/netfilter/nf_internals.h)
_NESTED = 0x8000


def forget_request(host_port: HostPort) -> bytes:
    """Delete all flows of this IP version, protocol UDP and original destination port.

    Kernels that cannot filter a deletion require a whole tuple and answer EINVAL, deleting nothing.
    """
    port = nl.attribute(_CTA_PROTO_DST_PORT, struct.pack(">H", host_port.port))
    protocol = nl.attribute(_CTA_TUPLE_PROTO | _NESTED, nl.u8(_CTA_PROTO_NUM, socket.IPPROTO_UDP) + port)
    flags = nl.u32(_CTA_FILTER_ORIG_FLAGS, _BY_PROTOCOL | _BY_DESTINATION_PORT)
    filtered = nl.attribute(_CTA_FILTER | _NESTED, flags + nl.u32(_CTA_FILTER_REPLY_FLAGS, 0))
    family = socket.AF_INET if host_port.version == 4 else socket.AF_INET6
    body = struct.pack("=BBH", family, 0, 0) + nl.attribute(_CTA_TUPLE_ORIG | _NESTED, protocol) + filtered
    return nl.message(_CT_DELETE, nl.NLM_F_ACK, body)


class FlowTable:
    """The kernel's conntrack table; the socket is opened when first needed. For one thread at a time."""

    def __init__(self) -> None:
        self._socket: nl.NetlinkSocket | None = None

    def forget(self, host_ports: Iterable[HostPort]) -> str:
        """Delete the flows of the UDP ones; returns the kernel's error, or ""."""
        requests = [forget_request(host_port) for host_port in host_ports if host_port.protocol == "udp"]
        if not requests:
            return ""
        try:
            if self._socket is None:
                self._socket = nl.NetlinkSocket(_NETLINK_NETFILTER)
            answers = self._socket.ask(requests)
        except OSError as error:
            return str(error)
        return next((nl.explain(answer) for answer in answers if answer.error), "")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
