"""The `info` of verbose answers (`crictl inspect`, `inspectp`, `inspecti`).

The keys are containerd's, so that scripts written for it find the pid, the request under `config` and the
namespaces' paths under `runtimeSpec`. No OCI runtime is used: `runtimeSpec` only has the applicable parts of
such a spec.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.codec import to_json
from phantom_cri.cri.convert.common import namespaces_message, resources_message
from phantom_cri.cri.convert.container import mount_message
from phantom_cri.model import (
    ContainerConfig,
    ContainerRecord,
    ContainerSecurity,
    Mount,
    NamespaceOptions,
    ProcessRef,
    SandboxConfig,
    SandboxRecord,
    SandboxSecurity,
    SecurityProfile,
)

_PROFILES = {
    "runtime_default": pb.SecurityProfile.RuntimeDefault,
    "unconfined": pb.SecurityProfile.Unconfined,
    "localhost": pb.SecurityProfile.Localhost,
}
_PROTOCOLS = {"tcp": pb.TCP, "udp": pb.UDP, "sctp": pb.SCTP}
_PROPAGATION_OPTIONS = {"private": "rprivate", "host_to_container": "rslave", "bidirectional": "rshared"}
# OCI's names of the namespaces, and their files below /proc/PID/ns (namespaces(7)).
_NAMESPACES = {"pid": "pid", "ipc": "ipc", "uts": "uts", "mount": "mnt", "network": "net", "cgroup": "cgroup"}


def sandbox_details(record: SandboxRecord) -> dict[str, str]:
    pid = record.fragment.pid if record.fragment and record.state == "ready" else 0
    return {
        "info": to_json(
            {
                "sandboxID": record.id,
                "pid": pid,
                "processStatus": "running" if pid else "deleted",
                "runtimeHandler": record.runtime_handler,
                "runtimeType": "phantom",
                "cgroupParent": record.cgroup_parent,
                "pool": record.pool,
                "start": record.start,
                "coldReason": record.cold_reason,
                "overhead": record.overhead,
                "resources": record.resources,
                "config": {"linux": {}} | plain(_sandbox_config_message(record.config)),
                "runtimeSpec": {
                    "hostname": record.hostname,
                    "annotations": record.config.annotations,
                    "linux": {
                        "sysctl": record.config.sysctls,
                        "cgroupsPath": record.cgroup_parent,
                        "namespaces": _namespaces(pid),
                    },
                },
            }
        ).decode()
    }


def container_details(record: ContainerRecord) -> dict[str, str]:
    """Without values of environment variables: they may be secrets, and this is copied to bug reports."""
    pid = _running_pid(record.process) if record.state == "running" else 0
    user = record.user
    return {
        "info": to_json(
            {
                "sandboxID": record.sandbox_id,
                "pid": pid,
                "runtimeType": "phantom",
                "image": record.image_name,
                "imageID": record.image_id,
                "cgroup": record.cgroup,
                "driver": record.driver,
                "policy": record.policy,
                "user": user,
                "config": {"linux": {}} | plain(_container_config_message(record.config)),
                "runtimeSpec": {
                    "process": {
                        "terminal": record.config.tty,
                        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
                        "cwd": record.config.working_dir or record.image.working_dir or "/",
                    },
                    "root": {"readonly": record.config.security.readonly_rootfs},
                    "mounts": [_oci_mount(mount) for mount in record.config.mounts],
                    "annotations": record.config.annotations,
                    "linux": {"cgroupsPath": record.cgroup, "namespaces": _namespaces(pid)},
                },
            }
        ).decode()
    }


def image_details(info: Mapping[str, object]) -> dict[str, str]:
    return {"info": to_json(info).decode()}


def _running_pid(process: ProcessRef | None) -> int:
    return process.pid if process else 0


def _namespaces(pid: int) -> list[dict[str, str]]:
    """The path of each namespace; empty for a process that has ended."""
    return [{"type": kind, "path": f"/proc/{pid}/ns/{file}"} for kind, file in _NAMESPACES.items() if pid]


def _oci_mount(mount: Mount) -> dict[str, Any]:
    options = ["rbind", _PROPAGATION_OPTIONS[mount.propagation], "ro" if mount.readonly else "rw"]
    return {
        "destination": mount.container_path,
        "type": "bind",
        "source": mount.host_path,
        "options": options,
    }


def plain(message: Any) -> dict[str, Any]:
    """A message as printed by CRI's Go types: .proto names, numbers as numbers, defaults omitted.

    Empty parts are omitted too: our records do not show whether the request had them.
    """
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            found[field.name] = dict(value)
        elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
            found[field.name] = [plain(one) if entry is not None else one for one in value]
        else:
            found[field.name] = plain(value) if entry is not None else value
    return {name: value for name, value in found.items() if value not in ({}, [])}


def _sandbox_config_message(config: SandboxConfig) -> pb.PodSandboxConfig:
    metadata = config.metadata
    return pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(
            name=metadata.name, uid=metadata.uid, namespace=metadata.namespace, attempt=metadata.attempt
        ),
        hostname=config.hostname,
        log_directory=config.log_directory,
        dns_config=None
        if config.dns is None
        else pb.DNSConfig(
            servers=config.dns.servers, searches=config.dns.searches, options=config.dns.options
        ),
        port_mappings=[
            pb.PortMapping(
                protocol=_PROTOCOLS[port.protocol],
                container_port=port.container_port,
                host_port=port.host_port,
                host_ip=port.host_ip,
            )
            for port in config.port_mappings
        ],
        labels=config.labels,
        annotations=config.annotations,
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=config.cgroup_parent,
            security_context=_sandbox_security_message(config.security),
            sysctls=config.sysctls,
            overhead=None if config.overhead is None else resources_message(config.overhead),
            resources=None if config.resources is None else resources_message(config.resources),
        ),
    )


def _sandbox_security_message(security: SandboxSecurity) -> pb.LinuxSandboxSecurityContext:
    return pb.LinuxSandboxSecurityContext(
        namespace_options=_namespaces_message(security.namespaces),
        selinux_options=_selinux_message(security),
        run_as_user=_id_message(security.run_as_user),
        run_as_group=_id_message(security.run_as_group),
        readonly_rootfs=security.readonly_rootfs,
        supplemental_groups=security.supplemental_groups,
        privileged=security.privileged,
        seccomp=_profile_message(security.seccomp),
        apparmor=_profile_message(security.apparmor),
    )


def _container_config_message(config: ContainerConfig) -> pb.ContainerConfig:
    """With the names of environment variables, without their values."""
    return pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=config.metadata.name, attempt=config.metadata.attempt),
        image=pb.ImageSpec(
            image=config.image.image,
            annotations=config.image.annotations,
            user_specified_image=config.image.user_specified_image,
            runtime_handler=config.image.runtime_handler,
        ),
        command=config.command,
        args=config.args,
        working_dir=config.working_dir,
        envs=[pb.KeyValue(key=env.name) for env in config.envs],
        mounts=[mount_message(mount) for mount in config.mounts],
        devices=[
            pb.Device(host_path=one.host_path, container_path=one.container_path, permissions=one.permissions)
            for one in config.devices
        ],
        CDI_devices=[pb.CDIDevice(name=name) for name in config.cdi_devices],
        labels=config.labels,
        annotations=config.annotations,
        log_path=config.log_path,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        tty=config.tty,
        linux=pb.LinuxContainerConfig(
            resources=resources_message(config.resources),
            security_context=_container_security_message(config.security),
        ),
    )


def _container_security_message(security: ContainerSecurity) -> pb.LinuxContainerSecurityContext:
    capabilities = security.capabilities
    return pb.LinuxContainerSecurityContext(
        capabilities=pb.Capability(
            add_capabilities=capabilities.add,
            drop_capabilities=capabilities.drop,
            add_ambient_capabilities=capabilities.add_ambient,
        ),
        privileged=security.privileged,
        namespace_options=_namespaces_message(security.namespaces),
        selinux_options=_selinux_message(security),
        run_as_user=_id_message(security.run_as_user),
        run_as_group=_id_message(security.run_as_group),
        run_as_username=security.run_as_username,
        readonly_rootfs=security.readonly_rootfs,
        supplemental_groups=security.supplemental_groups,
        supplemental_groups_policy=pb.Strict if security.supplemental_groups_policy == "strict" else pb.Merge,
        no_new_privs=security.no_new_privs,
        masked_paths=security.masked_paths,
        readonly_paths=security.readonly_paths,
        seccomp=_profile_message(security.seccomp),
        apparmor=_profile_message(security.apparmor),
    )


def _namespaces_message(options: NamespaceOptions) -> pb.NamespaceOption:
    """As requested; without a user namespace in the request it is the node's."""
    message = namespaces_message(options)
    if options.user == "node":
        message.ClearField("userns_options")
    return message


def _id_message(value: int | None) -> pb.Int64Value | None:
    return None if value is None else pb.Int64Value(value=value)


def _profile_message(profile: SecurityProfile | None) -> pb.SecurityProfile | None:
    if profile is None:
        return None
    return pb.SecurityProfile(profile_type=_PROFILES[profile.kind], localhost_ref=profile.localhost_ref)


def _selinux_message(security: SandboxSecurity | ContainerSecurity) -> pb.SELinuxOption | None:
    options = security.selinux
    if options is None:
        return None
    return pb.SELinuxOption(user=options.user, role=options.role, type=options.type, level=options.level)
