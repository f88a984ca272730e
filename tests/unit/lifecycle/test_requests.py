"""What requests become before anything is done: log paths, names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantom_cri.cgroups.v2 import V2Cgroups
from phantom_cri.errors import InvalidArgument
from phantom_cri.lifecycle.live import Pod
from phantom_cri.lifecycle.log_file import log_path
from phantom_cri.lifecycle.run_pod_sandbox import cgroup_parent, hostname_of
from phantom_cri.model import (
    ContainerConfig,
    ContainerMetadata,
    ImageSpec,
    NamespaceOptions,
    SandboxConfig,
    SandboxMetadata,
    SandboxRecord,
    SandboxSecurity,
)
from tests.unit.cgroups.cgroup2_folder import Cgroup2Folder

METADATA = SandboxMetadata(name="pod")


def pod_with(**fields: object) -> Pod:
    config = SandboxConfig(metadata=METADATA, **fields)  # type: ignore[arg-type]
    return Pod(SandboxRecord(id="p" * 64, config=config, created_at=1), None)


def container_with(path: str) -> ContainerConfig:
    return ContainerConfig(metadata=ContainerMetadata(name="c"), image=ImageSpec(), log_path=path)


@pytest.mark.parametrize(
    ("folder", "name", "path"),
    [
        ("/logs", "c/0.log", "/logs/c/0.log"),
        ("/logs/", "./0.log", "/logs/0.log"),
        ("/logs", "a/../0.log", "/logs/0.log"),
        ("", "0.log", ""),
        ("/logs", "", ""),
    ],
)
def test_where_a_container_logs(folder: str, name: str, path: str) -> None:
    assert log_path(pod_with(log_directory=folder), container_with(name)) == path


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/etc/passwd", "."])
def test_a_log_outside_the_pods_folder_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="log_path"):
        log_path(pod_with(log_directory="/logs"), container_with(name))


@given(st.text())
def test_no_name_of_a_log_leads_out_of_its_folder(name: str) -> None:
    try:
        path = log_path(pod_with(log_directory="/logs"), container_with(name))
    except InvalidArgument:
        return
    assert path == "" or os.path.normpath(path).startswith("/logs/")


def test_the_name_of_a_pod() -> None:
    def config(hostname: str, network: str) -> SandboxConfig:
        namespaces = NamespaceOptions(network=network)  # type: ignore[arg-type]
        return SandboxConfig(METADATA, hostname=hostname, security=SandboxSecurity(namespaces=namespaces))

    assert hostname_of(config("mine", "pod"), "0123456789abcdef") == "mine"
    assert hostname_of(config("", "pod"), "0123456789abcdef") == "0123456789ab"
    assert hostname_of(config("mine", "node"), "0123456789abcdef") == os.uname().nodename


@pytest.mark.parametrize("parent", ["/", "/a/../b", "..", "/a//b", "/a\nb"])
def test_a_cgroup_parent_that_no_container_could_use_is_refused(tmp_path: Path, parent: str) -> None:
    cgroups = V2Cgroups(Cgroup2Folder(tmp_path / "cgroup", frozenset({"cpu"})))
    with pytest.raises(InvalidArgument, match=r"config\.linux\.cgroup_parent"):
        cgroup_parent(cgroups, parent)
    cgroups.close()
