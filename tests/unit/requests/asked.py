"""Requests as tests write them: short."""

from __future__ import annotations

from typing import Any

from phantom_cri import codec
from phantom_cri.model import (
    CapabilitySets,
    CompiledPolicy,
    ContainerConfig,
    ContainerMetadata,
    ContainerSecurity,
    ImageConfig,
    ImageSpec,
    Mount,
    NamespaceOptions,
    User,
)
from phantom_cri.plans import ContainerLaunch
from phantom_cri.requests import merged


def container(*, security: dict[str, Any] | None = None, **fields: Any) -> ContainerConfig:
    made = ContainerConfig(metadata=ContainerMetadata(name="c"), image=ImageSpec(image="i"), **fields)
    if security:
        made = codec.replace(made, security=ContainerSecurity(**security))
    return made


def namespaces(**modes: Any) -> NamespaceOptions:
    return NamespaceOptions(**modes)


def mount(source: str, target: str, **fields: Any) -> Mount:
    return Mount(container_path=target, host_path=source, **fields)


def launch_of(config: ContainerConfig, **fields: Any) -> ContainerLaunch:
    image = ImageConfig(cmd=("sh",), env=("PATH=/bin",))
    made: dict[str, Any] = {
        "config": config,
        "process": merged(config, image, hostname="pod", home="/root"),
        "user": User(),
        "layers": ("/layers/b", "/layers/a"),
        "upper": "/c/upper",
        "work": "/c/work",
        "policy": CompiledPolicy(capabilities=CapabilitySets(1, 1, 1)),
    }
    return ContainerLaunch(**(made | fields))
