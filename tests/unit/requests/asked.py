"""Requests as tests write them: short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phantom_cri import codec, requests
from phantom_cri.model import (
    CapabilitySets,
    CompiledPolicy,
    ContainerConfig,
    ContainerMetadata,
    ContainerSecurity,
    ImageConfig,
    ImageMount,
    ImageSpec,
    Mount,
    NamespaceOptions,
    User,
)
from phantom_cri.plans import ContainerSpec, HostDevice, OverlayRoot
from phantom_cri.requests import Resolved, Surroundings
from phantom_cri.requests.mounts import binds


def container(*, security: dict[str, Any] | None = None, **fields: Any) -> ContainerConfig:
    made = ContainerConfig(metadata=ContainerMetadata(name="c"), image=ImageSpec(image="i"), **fields)
    if security:
        made = codec.replace(made, security=ContainerSecurity(**security))
    return made


def namespaces(**modes: Any) -> NamespaceOptions:
    return NamespaceOptions(**modes)


def mount(source: str, target: str, **fields: Any) -> Mount:
    return Mount(container_path=target, host_path=source, **fields)


def spec_of(
    config: ContainerConfig,
    *,
    mounted: Sequence[ImageMount] = (),
    volumes: Sequence[str] = (),
    devices: tuple[HostDevice, ...] = (),
    **given: Any,
) -> ContainerSpec:
    """`given`: of the container's surroundings."""
    image = ImageConfig(cmd=("sh",), env=("PATH=/bin",))
    process = requests.merged(config, image, hostname="pod", home="/root")
    made: dict[str, Any] = {
        "user": User(),
        "root": OverlayRoot(("/layers/b", "/layers/a"), "/c/upper", "/c/work"),
        "policy": CompiledPolicy(capabilities=CapabilitySets(1, 1, 1)),
        "volumes_folder": "/c",
    }
    resolved = Resolved(config, process, binds(config, mounted), tuple(volumes), devices)
    return requests.container_spec(resolved, Surroundings(**(made | given)))
