"""All that can be refused before a container exists: what a later verb would fail on, named now."""

from __future__ import annotations

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import (
    ContainerConfig,
    ImageConfig,
    NamespaceOptions,
    SandboxConfig,
)
from phantom_cri.requests.devices import resolve_devices
from phantom_cri.requests.mounts import anonymous_volumes, check_mounts
from phantom_cri.requests.process import merged
from phantom_cri.requests.user_namespace import check_container_user


def check_container(config: ContainerConfig, image: ImageConfig, sandbox: SandboxConfig) -> None:
    """Raises InvalidArgument, FailedPrecondition, Unimplemented, naming field and value; changes nothing.

    Looks at the host's devices and mounts, and at no network.
    """
    check_namespaces(config.security.namespaces, sandbox.security.namespaces)
    check_container_user(config, sandbox.security.namespaces)
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
