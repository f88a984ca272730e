"""All that can be refused before a container exists: what a later verb would fail on, named now."""

from __future__ import annotations

import os

from phantom_cri.errors import FailedPrecondition, InvalidArgument, Unimplemented
from phantom_cri.launch.devices import resolve_devices
from phantom_cri.launch.mounts import anonymous_volumes, check_mounts
from phantom_cri.launch.process import merged
from phantom_cri.launch.user_namespace import check_container_user
from phantom_cri.model import (
    ContainerConfig,
    ContainerSecurity,
    ImageConfig,
    NamespaceOptions,
    SandboxConfig,
    SandboxSecurity,
)

_UNCONSTRAINED = ("spc_t", "unconfined_t")
"""Types of SELinux' reference policies for containers that nothing holds in."""


def check_container(config: ContainerConfig, image: ImageConfig, sandbox: SandboxConfig) -> None:
    """Raises InvalidArgument, FailedPrecondition, Unimplemented, naming field and value; changes nothing.

    Looks at the host's devices and mounts, and at no network.
    """
    check_namespaces(config.security.namespaces, sandbox.security.namespaces)
    check_container_user(config, sandbox.security.namespaces)
    check_labels(config.security)
    merged(config, image)
    check_mounts(config)
    anonymous_volumes(config, image)
    resolve_devices(config)


def check_namespaces(asked: NamespaceOptions, pod: NamespaceOptions) -> None:
    """A container may leave the pod's namespaces for its own, but not for the host's."""
    for field in ("network", "ipc", "pid"):
        mode, of_pod = getattr(asked, field), getattr(pod, field)
        if mode == "node" and of_pod != "node":
            raise InvalidArgument(f"namespace_options.{field}: NODE, but the pod has {of_pod.upper()}")
        if field != "pid" and mode not in ("pod", "node"):
            raise InvalidArgument(f"namespace_options.{field}: {mode.upper()} is for pid only")
    if (asked.pid == "target") != bool(asked.target_id):
        raise InvalidArgument(
            f"namespace_options: target_id {asked.target_id!r} with pid {asked.pid.upper()}"
        )


def check_labels(security: ContainerSecurity | SandboxSecurity) -> None:
    """A label that would hold a process in and cannot be given is refused, not left out.

    Those that set one free are common where nobody has SELinux, and mean nothing there.
    """
    asked = security.selinux
    if asked is None or security.privileged or asked.type in _UNCONSTRAINED:
        return
    if not any((asked.user, asked.role, asked.type, asked.level)):
        return
    if selinux_enabled():
        raise Unimplemented(f"selinux_options: {asked}: SELinux is not supported yet")
    raise FailedPrecondition(f"selinux_options: {asked}: SELinux is not enabled on this host")


def selinux_enabled() -> bool:
    return os.path.exists("/sys/fs/selinux/enforce")
