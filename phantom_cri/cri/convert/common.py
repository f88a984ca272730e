"""Conversions for both pods and containers: enums, namespaces, resources, profiles, ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import (
    CgroupDriver,
    ContainerState,
    HugepageLimit,
    IdMapping,
    ImageSpec,
    NamespaceMode,
    NamespaceOptions,
    Resources,
    SandboxState,
    SecurityProfile,
    SelinuxOptions,
)

Word = TypeVar("Word")

NAMESPACE_MODES: dict[NamespaceMode, pb.NamespaceMode] = {
    "pod": pb.POD,
    "container": pb.CONTAINER,
    "node": pb.NODE,
    "target": pb.TARGET,
}
SANDBOX_STATES: dict[SandboxState, pb.PodSandboxState] = {
    "ready": pb.SANDBOX_READY,
    "notready": pb.SANDBOX_NOTREADY,
}
CONTAINER_STATES: dict[ContainerState, pb.ContainerState] = {
    "created": pb.CONTAINER_CREATED,
    "running": pb.CONTAINER_RUNNING,
    "exited": pb.CONTAINER_EXITED,
    "unknown": pb.CONTAINER_UNKNOWN,
}
CGROUP_DRIVERS: dict[CgroupDriver, pb.CgroupDriver] = {"systemd": pb.SYSTEMD, "cgroupfs": pb.CGROUPFS}

# (uid_t) -1 means "do not change" in setresuid(2) and chown(2): never an id.
HIGHEST_ID = 2**31 - 1


def words_by_value(values: Mapping[Word, int]) -> dict[int, Word]:
    return {int(value): word for word, value in values.items()}


_MODE_WORDS = words_by_value(NAMESPACE_MODES)


def word_of(words: Mapping[int, Word], value: int, field: str) -> Word:
    """The word for an enum's value; proto3 accepts any number."""
    try:
        return words[value]
    except KeyError:
        raise InvalidArgument(f"{field}: {value} is not one of {sorted(words)}") from None


def refuse_nul(texts: Mapping[str, Iterable[str]]) -> None:
    """`texts`: field → values that become C strings, which a NUL would truncate."""
    for field, values in texts.items():
        if "\0" in "".join(values):
            raise InvalidArgument(f"{field}: contains a NUL byte")


def sandbox_id_from(value: str) -> str:
    if not value:
        raise InvalidArgument("pod_sandbox_id: must not be empty")
    return value


def container_id_from(value: str) -> str:
    if not value:
        raise InvalidArgument("container_id: must not be empty")
    return value


def command_from(words: Iterable[str]) -> tuple[str, ...]:
    """An exec's command; unlike a container's, it cannot come from the image."""
    command = tuple(words)
    if not command:
        raise InvalidArgument("cmd: must not be empty")
    refuse_nul({"cmd": command})
    return command


def in_range(value: int, low: int, high: int, field: str) -> int:
    if not low <= value <= high:
        raise InvalidArgument(f"{field}: {value} is not in {low}…{high}")
    return value


def id_from(value: pb.Int64Value, field: str) -> int:
    return in_range(value.value, 0, HIGHEST_ID, field)


def groups_from(values: Iterable[int], field: str) -> tuple[int, ...]:
    return tuple(in_range(value, 0, HIGHEST_ID, field) for value in values)


def namespaces_from(message: pb.NamespaceOption, field: str) -> NamespaceOptions:
    users = message.userns_options if message.HasField("userns_options") else None
    return NamespaceOptions(
        network=word_of(_MODE_WORDS, message.network, f"{field}.network"),
        pid=word_of(_MODE_WORDS, message.pid, f"{field}.pid"),
        ipc=word_of(_MODE_WORDS, message.ipc, f"{field}.ipc"),
        target_id=message.target_id,
        user="node" if users is None else word_of(_MODE_WORDS, users.mode, f"{field}.userns_options.mode"),
        uids=() if users is None else id_mappings_from(users.uids),
        gids=() if users is None else id_mappings_from(users.gids),
    )


def namespaces_message(options: NamespaceOptions) -> pb.NamespaceOption:
    return pb.NamespaceOption(
        network=NAMESPACE_MODES[options.network],
        pid=NAMESPACE_MODES[options.pid],
        ipc=NAMESPACE_MODES[options.ipc],
        target_id=options.target_id,
        userns_options=pb.UserNamespace(
            mode=NAMESPACE_MODES[options.user],
            uids=id_mapping_messages(options.uids),
            gids=id_mapping_messages(options.gids),
        ),
    )


def id_mappings_from(messages: Iterable[pb.IDMapping]) -> tuple[IdMapping, ...]:
    return tuple(
        IdMapping(host_id=one.host_id, container_id=one.container_id, length=one.length) for one in messages
    )


def id_mapping_messages(mappings: Iterable[IdMapping]) -> list[pb.IDMapping]:
    return [
        pb.IDMapping(host_id=one.host_id, container_id=one.container_id, length=one.length)
        for one in mappings
    ]


def resources_from(message: pb.LinuxContainerResources, field: str) -> Resources:
    refuse_nul({f"{field}.unified": [*message.unified, *message.unified.values()]})
    return Resources(
        cpu_period=in_range(message.cpu_period, 0, 2**63 - 1, f"{field}.cpu_period"),
        cpu_quota=message.cpu_quota,
        cpu_shares=in_range(message.cpu_shares, 0, 2**63 - 1, f"{field}.cpu_shares"),
        memory_limit=message.memory_limit_in_bytes,
        memory_swap_limit=message.memory_swap_limit_in_bytes,
        oom_score_adj=in_range(message.oom_score_adj, -1000, 1000, f"{field}.oom_score_adj"),
        cpuset_cpus=message.cpuset_cpus,
        cpuset_mems=message.cpuset_mems,
        hugepage_limits=tuple(
            HugepageLimit(page_size=one.page_size, limit=one.limit) for one in message.hugepage_limits
        ),
        unified=dict(message.unified),
    )


def resources_message(resources: Resources) -> pb.LinuxContainerResources:
    return pb.LinuxContainerResources(
        cpu_period=resources.cpu_period,
        cpu_quota=resources.cpu_quota,
        cpu_shares=resources.cpu_shares,
        memory_limit_in_bytes=resources.memory_limit,
        memory_swap_limit_in_bytes=resources.memory_swap_limit,
        oom_score_adj=resources.oom_score_adj,
        cpuset_cpus=resources.cpuset_cpus,
        cpuset_mems=resources.cpuset_mems,
        hugepage_limits=[
            pb.HugepageLimit(page_size=one.page_size, limit=one.limit) for one in resources.hugepage_limits
        ],
        unified=resources.unified,
    )


def selinux_from(message: pb.SELinuxOption) -> SelinuxOptions:
    return SelinuxOptions(user=message.user, role=message.role, type=message.type, level=message.level)


def seccomp_from(
    context: pb.LinuxSandboxSecurityContext | pb.LinuxContainerSecurityContext, field: str
) -> SecurityProfile | None:
    """The message wins over the deprecated text; without both: unconfined."""
    if context.HasField("seccomp"):
        return _profile_from(context.seccomp, f"{field}.seccomp")
    return _profile_from_text(context.seccomp_profile_path, None, f"{field}.seccomp_profile_path")


def apparmor_from(
    context: pb.LinuxSandboxSecurityContext | pb.LinuxContainerSecurityContext, field: str
) -> SecurityProfile:
    """As seccomp, but without both the runtime's default is used."""
    default = SecurityProfile()
    if context.HasField("apparmor"):
        return _profile_from(context.apparmor, f"{field}.apparmor")
    if isinstance(context, pb.LinuxSandboxSecurityContext):
        return default
    return _profile_from_text(context.apparmor_profile, default, f"{field}.apparmor_profile") or default


def _profile_from(message: pb.SecurityProfile, field: str) -> SecurityProfile:
    if message.profile_type == pb.SecurityProfile.RuntimeDefault:
        return SecurityProfile()
    if message.profile_type == pb.SecurityProfile.Unconfined:
        return SecurityProfile(kind="unconfined")
    if message.profile_type != pb.SecurityProfile.Localhost:
        raise InvalidArgument(f"{field}.profile_type: {message.profile_type} is not one of [0, 1, 2]")
    return _localhost_profile(message.localhost_ref, f"{field}.localhost_ref")


def _profile_from_text(text: str, absent: SecurityProfile | None, field: str) -> SecurityProfile | None:
    """The format before Kubernetes 1.20: `runtime/default`, `unconfined`, `localhost/NAME`."""
    if not text:
        return absent
    if text in ("runtime/default", "docker/default"):
        return SecurityProfile()
    if text == "unconfined":
        return SecurityProfile(kind="unconfined")
    if text.startswith("localhost/"):
        return _localhost_profile(text, field)
    raise InvalidArgument(f"{field}: {text!r} is not runtime/default, unconfined or localhost/…")


def _localhost_profile(reference: str, field: str) -> SecurityProfile:
    """Callers send an AppArmor name with or without the prefix `localhost/`."""
    name = reference.removeprefix("localhost/")
    if not name:
        raise InvalidArgument(f"{field}: a localhost profile needs a name")
    refuse_nul({field: [name]})
    return SecurityProfile(kind="localhost", localhost_ref=name)


def image_spec_from(message: pb.ImageSpec) -> ImageSpec:
    return ImageSpec(
        image=message.image,
        annotations=dict(message.annotations),
        user_specified_image=message.user_specified_image,
        runtime_handler=message.runtime_handler,
        image_ref=message.image_ref,
    )


def image_spec_message(spec: ImageSpec, image: str = "") -> pb.ImageSpec:
    """`image` replaces the requested name."""
    return pb.ImageSpec(
        image=image or spec.image,
        annotations=spec.annotations,
        user_specified_image=spec.user_specified_image,
        runtime_handler=spec.runtime_handler,
        image_ref=spec.image_ref,
    )
