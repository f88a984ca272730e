from __future__ import annotations

from typing import Any

import pytest

from phantom_cri.errors import FailedPrecondition, InvalidArgument, Unimplemented
from phantom_cri.launch import check_container, check_namespaces
from phantom_cri.model import (
    EnvVar,
    ImageConfig,
    SandboxConfig,
    SandboxMetadata,
    SandboxSecurity,
    SelinuxOptions,
)
from tests.unit.launch.requests import container, mount, namespaces

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


@pytest.mark.parametrize("options", [SelinuxOptions(level="s0:c1"), SelinuxOptions(type="container_t")])
def test_a_label_that_the_host_cannot_give_is_refused(options: SelinuxOptions) -> None:
    with pytest.raises((FailedPrecondition, Unimplemented), match=r"selinux_options: .*SELinux is not"):
        check_container(container(security={"selinux": options}), IMAGE, sandbox())


def test_labels_that_change_nothing_are_fine() -> None:
    for security in (
        {"selinux": SelinuxOptions()},
        {"selinux": SelinuxOptions(level="s0"), "privileged": True},
        {"selinux": SelinuxOptions(level="s0", type="spc_t")},
    ):
        check_container(container(security=security), IMAGE, sandbox())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"envs": (EnvVar(name="="),)}, r"envs\[0\].name"),
        ({"mounts": (mount("/a", "b"),)}, r"mounts\[0\].container_path"),
        ({"working_dir": "x"}, "working_dir"),
    ],
)
def test_everything_is_checked(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        check_container(container(**fields), IMAGE, sandbox())
