"""The daemon, clients and pods of the lifecycle's tests, and pods with a user namespace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Pod, linux
from tests.e2e.lifecycle.conftest import PodMaker, cri, make_pod, node, pod, shared

__all__ = ["cri", "make_pod", "node", "pod", "shared"]

FIRST, COUNT = 100_000, 65_536
"""The ids of a pod as the host counts, unless a test says otherwise."""


def user_namespace(
    first: int = FIRST, count: int = COUNT, *, mode: pb.NamespaceMode = pb.POD
) -> pb.UserNamespace:
    mapping = id_mapping(first, count)
    return pb.UserNamespace(mode=mode, uids=[mapping], gids=[mapping])


def id_mapping(first: int = FIRST, count: int = COUNT, inside: int = 0) -> pb.IDMapping:
    return pb.IDMapping(host_id=first, container_id=inside, length=count)


def sandbox(users: pb.UserNamespace, *, privileged: bool = False, **options: Any) -> pb.LinuxPodSandboxConfig:
    namespaces = pb.NamespaceOption(**{"pid": pb.CONTAINER, "userns_options": users, **options})
    return pb.LinuxPodSandboxConfig(
        security_context=pb.LinuxSandboxSecurityContext(namespace_options=namespaces, privileged=privileged)
    )


def inside(users: pb.UserNamespace | None = None, **security: Any) -> pb.LinuxContainerConfig:
    """What the kubelet asks of a container of such a pod."""
    pid = security.pop("pid", pb.CONTAINER)
    options = pb.NamespaceOption(pid=pid, userns_options=users or user_namespace())
    return linux(namespace_options=options, **security)


def mapped_mount(host: object, path: str, **fields: Any) -> pb.Mount:
    """As the kubelet asks for every volume of such a pod."""
    ids = [id_mapping()]
    return pb.Mount(
        **{"host_path": str(host), "container_path": path, "uidMappings": ids, "gidMappings": ids, **fields}
    )


def host_pid(container: Container) -> int:
    """Its first process, as the host counts."""
    return int(json.loads(container.details)["pid"])


def owner(path: Path | str) -> tuple[int, int]:
    """Who owns a file on the host."""
    status = Path(path).lstat()
    return status.st_uid, status.st_gid


@pytest.fixture
def user_pod(make_pod: PodMaker) -> Pod:
    """A pod whose ids from 0 on are the host's from FIRST on."""
    return make_pod(linux=sandbox(user_namespace()))


Sleeper = Callable[..., Container]


@pytest.fixture
def sleeper(user_pod: Pod) -> Sleeper:
    """Starts a container that waits to be told what to do; takes the fields of its security context."""

    def start(**security: Any) -> Container:
        return user_pod.start("sleep 1000", linux=inside(**security))

    return start
