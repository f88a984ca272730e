"""Pods: PodSandboxConfig in, PodSandboxStatus and PodSandbox out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.convert.common import (
    SANDBOX_STATES,
    apparmor_from,
    groups_from,
    id_from,
    in_range,
    namespaces_from,
    namespaces_message,
    refuse_nul,
    resources_from,
    seccomp_from,
    selinux_from,
    word_of,
    words_by_value,
)
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import (
    DnsConfig,
    PortMapping,
    SandboxConfig,
    SandboxMetadata,
    SandboxRecord,
    SandboxSecurity,
    SandboxState,
)

_PROTOCOLS: dict[int, Literal["tcp", "udp", "sctp"]] = {
    int(pb.TCP): "tcp",
    int(pb.UDP): "udp",
    int(pb.SCTP): "sctp",
}
_STATE_WORDS = words_by_value(SANDBOX_STATES)


def sandbox_config_from(message: pb.PodSandboxConfig, field: str = "config") -> SandboxConfig:
    if not message.metadata.name:
        raise InvalidArgument(f"{field}.metadata.name: a pod needs a name")
    linux = message.linux
    refuse_nul(
        {
            f"{field}.log_directory": [message.log_directory],
            f"{field}.linux.cgroup_parent": [linux.cgroup_parent],
        }
    )
    return SandboxConfig(
        metadata=_metadata_from(message.metadata),
        hostname=message.hostname,
        log_directory=message.log_directory,
        dns=_dns_from(message.dns_config) if message.HasField("dns_config") else None,
        port_mappings=tuple(_port_from(one, f"{field}.port_mappings") for one in message.port_mappings),
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        cgroup_parent=linux.cgroup_parent,
        security=_security_from(linux.security_context, f"{field}.linux.security_context"),
        sysctls=dict(linux.sysctls),
        overhead=resources_from(linux.overhead, f"{field}.linux.overhead")
        if linux.HasField("overhead")
        else None,
        resources=resources_from(linux.resources, f"{field}.linux.resources")
        if linux.HasField("resources")
        else None,
    )


def _metadata_from(message: pb.PodSandboxMetadata) -> SandboxMetadata:
    return SandboxMetadata(
        name=message.name, uid=message.uid, namespace=message.namespace, attempt=message.attempt
    )


def _dns_from(message: pb.DNSConfig) -> DnsConfig:
    return DnsConfig(
        servers=tuple(message.servers), searches=tuple(message.searches), options=tuple(message.options)
    )


def _port_from(message: pb.PortMapping, field: str) -> PortMapping:
    return PortMapping(
        protocol=word_of(_PROTOCOLS, message.protocol, f"{field}.protocol"),
        container_port=in_range(message.container_port, 0, 65535, f"{field}.container_port"),
        host_port=in_range(message.host_port, 0, 65535, f"{field}.host_port"),
        host_ip=message.host_ip,
    )


def _security_from(message: pb.LinuxSandboxSecurityContext, field: str) -> SandboxSecurity:
    user = id_from(message.run_as_user, f"{field}.run_as_user") if message.HasField("run_as_user") else None
    group = (
        id_from(message.run_as_group, f"{field}.run_as_group") if message.HasField("run_as_group") else None
    )
    if group is not None and user is None:
        raise InvalidArgument(f"{field}.run_as_group: {group} needs run_as_user")
    return SandboxSecurity(
        namespaces=namespaces_from(message.namespace_options, f"{field}.namespace_options"),
        selinux=selinux_from(message.selinux_options) if message.HasField("selinux_options") else None,
        run_as_user=user,
        run_as_group=group,
        readonly_rootfs=message.readonly_rootfs,
        supplemental_groups=groups_from(message.supplemental_groups, f"{field}.supplemental_groups"),
        privileged=message.privileged,
        seccomp=seccomp_from(message, field),
        apparmor=apparmor_from(message, field),
    )


def sandbox_state_from(message: pb.PodSandboxFilter) -> SandboxState | None:
    """An absent wrapper means every state; a present 0 means READY."""
    if not message.HasField("state"):
        return None
    return word_of(_STATE_WORDS, message.state.state, "filter.state")


def sandbox_message(record: SandboxRecord) -> pb.PodSandbox:
    return pb.PodSandbox(
        id=record.id,
        metadata=_metadata_message(record.config.metadata),
        state=SANDBOX_STATES[record.state],
        created_at=record.created_at,
        labels=record.config.labels,
        annotations=record.config.annotations,
        runtime_handler=record.runtime_handler,
    )


def sandbox_messages(records: Iterable[SandboxRecord]) -> list[pb.PodSandbox]:
    return [sandbox_message(record) for record in records]


def sandbox_status_message(record: SandboxRecord) -> pb.PodSandboxStatus:
    namespaces = namespaces_message(record.config.security.namespaces)
    # A stopped pod has released its addresses: they may be another pod's by now.
    has_own = record.state == "ready" and record.config.security.namespaces.network != "node"
    ips = record.ips if has_own else ()
    return pb.PodSandboxStatus(
        id=record.id,
        metadata=_metadata_message(record.config.metadata),
        state=SANDBOX_STATES[record.state],
        created_at=record.created_at,
        network=pb.PodSandboxNetworkStatus(
            ip=ips[0] if ips else "", additional_ips=[pb.PodIP(ip=ip) for ip in ips[1:]]
        ),
        linux=pb.LinuxPodSandboxStatus(namespaces=pb.Namespace(options=namespaces)),
        labels=record.config.labels,
        annotations=record.config.annotations,
        runtime_handler=record.runtime_handler,
    )


def _metadata_message(metadata: SandboxMetadata) -> pb.PodSandboxMetadata:
    return pb.PodSandboxMetadata(
        name=metadata.name, uid=metadata.uid, namespace=metadata.namespace, attempt=metadata.attempt
    )
