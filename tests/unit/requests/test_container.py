from __future__ import annotations

from typing import Any

import pytest

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import (
    EnvVar,
    ImageConfig,
    SandboxConfig,
    SandboxMetadata,
    SandboxSecurity,
    User,
)
from phantom_cri.requests.container import check_namespaces, resolve
from tests.unit.requests.asked import container, mount, namespaces

IMAGE = ImageConfig(cmd=("sh",), volumes=("/data",))


def sandbox(**modes: Any) -> SandboxConfig:
    security = SandboxSecurity(namespaces=namespaces(**modes))
    return SandboxConfig(metadata=SandboxMetadata(name="s"), security=security)


@pytest.mark.parametrize(
    ("asked", "pod", "words"),
    [
        ({"pid": "node"}, {}, "namespace_options.pid: NODE, but the pod has POD"),
        ({"ipc": "node"}, {}, "namespace_options.ipc: NODE, but the pod has POD"),
        ({"network": "node"}, {}, "namespace_options.network: NODE, but the pod has POD"),
        ({"ipc": "container"}, {}, "namespace_options.ipc: CONTAINER is for pid only"),
        ({"network": "target"}, {}, "namespace_options.network: TARGET is for pid only"),
        ({"pid": "target"}, {}, "target_id '' with pid TARGET"),
        ({"target_id": "x"}, {}, "target_id 'x' with pid POD"),
    ],
)
def test_namespaces_that_do_not_fit(asked: dict[str, Any], pod: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        check_namespaces(namespaces(**asked), namespaces(**pod))


@pytest.mark.parametrize(
    ("asked", "pod"),
    [
        ({}, {}),
        ({}, {"pid": "node", "network": "node", "ipc": "node"}),
        (
            {"pid": "node", "network": "node", "ipc": "node"},
            {"pid": "node", "network": "node", "ipc": "node"},
        ),
        ({"pid": "container"}, {"pid": "node"}),
        ({"pid": "target", "target_id": "x"}, {}),
    ],
)
def test_namespaces_that_fit(asked: dict[str, Any], pod: dict[str, Any]) -> None:
    check_namespaces(namespaces(**asked), namespaces(**pod))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"envs": (EnvVar(name="="),)}, r"envs\[0\].name"),
        ({"mounts": (mount("/a", "/b/.."),)}, r"mounts\[0\].container_path"),
        ({"working_dir": "x"}, "working_dir"),
        ({"security": {"privileged": True}}, "security_context.privileged: the pod sandbox is not"),
        ({"security": {"namespaces": namespaces(pid="node")}}, "namespace_options.pid"),
    ],
)
def test_everything_is_checked(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        resolve(container(**fields), IMAGE, sandbox(), user=User())
