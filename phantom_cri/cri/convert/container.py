"""Containers: ContainerConfig in, ContainerStatus and Container out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.convert.common import (
    CONTAINER_STATES,
    apparmor_from,
    groups_from,
    id_from,
    id_mapping_messages,
    id_mappings_from,
    image_spec_from,
    image_spec_message,
    namespaces_from,
    refuse_nul,
    resources_from,
    resources_message,
    seccomp_from,
    selinux_from,
    word_of,
    words_by_value,
)
from phantom_cri.cri.convert.signals import signal_from, signal_value
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import (
    Capabilities,
    ContainerConfig,
    ContainerMetadata,
    ContainerRecord,
    ContainerSecurity,
    ContainerState,
    Device,
    EnvVar,
    Mount,
    Propagation,
)

_STATE_WORDS = words_by_value(CONTAINER_STATES)
_PROPAGATIONS: dict[Propagation, pb.MountPropagation] = {
    "private": pb.PROPAGATION_PRIVATE,
    "host_to_container": pb.PROPAGATION_HOST_TO_CONTAINER,
    "bidirectional": pb.PROPAGATION_BIDIRECTIONAL,
}
_PROPAGATION_WORDS = words_by_value(_PROPAGATIONS)
_GROUP_POLICIES: dict[int, Literal["merge", "strict"]] = {int(pb.Merge): "merge", int(pb.Strict): "strict"}


def container_config_from(message: pb.ContainerConfig, field: str = "config") -> ContainerConfig:
    if not message.metadata.name:
        raise InvalidArgument(f"{field}.metadata.name: a container needs a name")
    if not message.image.image:
        raise InvalidArgument(f"{field}.image.image: a container needs an image")
    refuse_nul(
        {
            f"{field}.log_path": [message.log_path],
            f"{field}.mounts.image_sub_path": [one.image_sub_path for one in message.mounts],
        }
    )
    linux = message.linux
    return ContainerConfig(
        metadata=ContainerMetadata(name=message.metadata.name, attempt=message.metadata.attempt),
        image=image_spec_from(message.image),
        command=tuple(message.command),
        args=tuple(message.args),
        working_dir=message.working_dir,
        envs=tuple(map(_env_from, message.envs)),
        mounts=tuple(_mount_from(one, f"{field}.mounts") for one in message.mounts),
        devices=tuple(map(_device_from, message.devices)),
        cdi_devices=tuple(one.name for one in message.CDI_devices),
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        log_path=message.log_path,
        stdin=message.stdin,
        stdin_once=message.stdin_once,
        tty=message.tty,
        resources=resources_from(linux.resources, f"{field}.linux.resources"),
        security=_security_from(linux.security_context, f"{field}.linux.security_context"),
        stop_signal=signal_from(message.stop_signal, f"{field}.stop_signal"),
    )


def _env_from(message: pb.KeyValue) -> EnvVar:
    try:
        return EnvVar(name=message.key, value=message.value.decode())
    except UnicodeDecodeError:
        return EnvVar(name=message.key, raw=message.value)


def _mount_from(message: pb.Mount, field: str) -> Mount:
    return Mount(
        container_path=message.container_path,
        host_path=message.host_path,
        readonly=message.readonly,
        selinux_relabel=message.selinux_relabel,
        propagation=word_of(_PROPAGATION_WORDS, message.propagation, f"{field}.propagation"),
        uid_mappings=id_mappings_from(message.uidMappings),
        gid_mappings=id_mappings_from(message.gidMappings),
        recursive_read_only=message.recursive_read_only,
        image=image_spec_from(message.image) if message.HasField("image") else None,
        image_sub_path=message.image_sub_path,
    )


def _mount_messages(record: ContainerRecord) -> list[pb.Mount]:
    """As requested; a mount of an image has the mounted image's id in `image_ref`."""
    images = iter(record.image_mounts)
    found = [mount_message(mount) for mount in record.config.mounts]
    for message in found:
        if message.HasField("image") and (image := next(images, None)) is not None:
            message.image.image_ref = image.image_id
    return found


def mount_message(mount: Mount) -> pb.Mount:
    return pb.Mount(
        container_path=mount.container_path,
        host_path=mount.host_path,
        readonly=mount.readonly,
        selinux_relabel=mount.selinux_relabel,
        propagation=_PROPAGATIONS[mount.propagation],
        uidMappings=id_mapping_messages(mount.uid_mappings),
        gidMappings=id_mapping_messages(mount.gid_mappings),
        recursive_read_only=mount.recursive_read_only,
        image=image_spec_message(mount.image) if mount.image else None,
        image_sub_path=mount.image_sub_path,
    )


def _device_from(message: pb.Device) -> Device:
    return Device(
        host_path=message.host_path,
        container_path=message.container_path,
        permissions=message.permissions or "rwm",
    )


def _security_from(message: pb.LinuxContainerSecurityContext, field: str) -> ContainerSecurity:
    capabilities = message.capabilities
    refuse_nul(
        {
            f"{field}.run_as_username": [message.run_as_username],
            f"{field}.masked_paths": message.masked_paths,
            f"{field}.readonly_paths": message.readonly_paths,
        }
    )
    user, group = _user_and_group_from(message, field)
    policy = message.supplemental_groups_policy
    return ContainerSecurity(
        capabilities=Capabilities(
            add=tuple(capabilities.add_capabilities),
            drop=tuple(capabilities.drop_capabilities),
            add_ambient=tuple(capabilities.add_ambient_capabilities),
        ),
        privileged=message.privileged,
        namespaces=namespaces_from(message.namespace_options, f"{field}.namespace_options"),
        selinux=selinux_from(message.selinux_options) if message.HasField("selinux_options") else None,
        run_as_user=user,
        run_as_group=group,
        run_as_username=message.run_as_username,
        readonly_rootfs=message.readonly_rootfs,
        supplemental_groups=groups_from(message.supplemental_groups, f"{field}.supplemental_groups"),
        supplemental_groups_policy=word_of(_GROUP_POLICIES, policy, f"{field}.supplemental_groups_policy"),
        no_new_privs=message.no_new_privs,
        masked_paths=tuple(message.masked_paths),
        readonly_paths=tuple(message.readonly_paths),
        seccomp=seccomp_from(message, field),
        apparmor=apparmor_from(message, field),
    )


def _user_and_group_from(
    message: pb.LinuxContainerSecurityContext, field: str
) -> tuple[int | None, int | None]:
    user = id_from(message.run_as_user, f"{field}.run_as_user") if message.HasField("run_as_user") else None
    group = (
        id_from(message.run_as_group, f"{field}.run_as_group") if message.HasField("run_as_group") else None
    )
    name = message.run_as_username
    if user is not None and name:
        raise InvalidArgument(f"{field}.run_as_username: {name!r} cannot be combined with run_as_user {user}")
    if group is not None and user is None and not name:
        raise InvalidArgument(f"{field}.run_as_group: {group} needs run_as_user or run_as_username")
    return user, group


def container_state_from(message: pb.ContainerFilter) -> ContainerState | None:
    """An absent wrapper means every state; a present 0 means CREATED."""
    if not message.HasField("state"):
        return None
    return word_of(_STATE_WORDS, message.state.state, "filter.state")


def container_message(record: ContainerRecord) -> pb.Container:
    config = record.config
    return pb.Container(
        id=record.id,
        pod_sandbox_id=record.sandbox_id,
        metadata=pb.ContainerMetadata(name=config.metadata.name, attempt=config.metadata.attempt),
        image=image_spec_message(config.image, record.image_name),
        # In a list the image is its id, as in containerd; the status has the digest for a pull.
        image_ref=record.image_id,
        state=CONTAINER_STATES[record.state],
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
        image_id=record.image_id,
    )


def container_messages(records: Iterable[ContainerRecord]) -> list[pb.Container]:
    return [container_message(record) for record in records]


def container_status_message(record: ContainerRecord) -> pb.ContainerStatus:
    config, user = record.config, record.user
    return pb.ContainerStatus(
        id=record.id,
        metadata=pb.ContainerMetadata(name=config.metadata.name, attempt=config.metadata.attempt),
        state=CONTAINER_STATES[record.state],
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        exit_code=record.exit_code,
        image=image_spec_message(config.image, record.image_name),
        image_ref=record.image_ref,
        reason=record.reason,
        message=record.message,
        labels=config.labels,
        annotations=config.annotations,
        mounts=_mount_messages(record),
        log_path=record.log_path,
        resources=pb.ContainerResources(linux=resources_message(record.resources)),
        image_id=record.image_id,
        user=pb.ContainerUser(
            linux=pb.LinuxContainerUser(uid=user.uid, gid=user.gid, supplemental_groups=user.groups)
        ),
        stop_signal=signal_value(record.stop_signal),
    )
