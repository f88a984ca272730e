"""AppArmor where the host has it; where not, a profile asked for by name is refused and the rest is fine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Cri, Pod, linux, refusal
from tests.e2e.lifecycle.conftest import PodMaker
from tests.kernel_features import PROBES

pytestmark = pytest.mark.root

DEFAULTS: list[dict[str, Any]] = [
    {},
    {"apparmor": pb.SecurityProfile()},
    {"apparmor_profile": "runtime/default"},
]
UNCONFINED = pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined)
NAME = "phantom-tests-deny-write"
PROFILE = f"""
profile {NAME} flags=(attach_disconnected) {{
  file,
  signal (receive) peer=unconfined,
  deny /tmp/** w,
}}
"""
ATTRIBUTE = "cat /proc/self/attr/apparmor/current 2>/dev/null || cat /proc/self/attr/current"


def localhost(name: str) -> pb.SecurityProfile:
    return pb.SecurityProfile(profile_type=pb.SecurityProfile.Localhost, localhost_ref=name)


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[str]:
    """Name of a loaded profile that lets nobody write to /tmp."""
    (tmp_path / "profile").write_text(PROFILE)
    subprocess.run(["apparmor_parser", "--replace", "--skip-cache", tmp_path / "profile"], check=True)
    yield NAME
    subprocess.run(["apparmor_parser", "--remove", tmp_path / "profile"], check=True)


@pytest.mark.parametrize(
    "security", [{"apparmor": localhost("not-loaded")}, {"apparmor_profile": "localhost/not-loaded"}]
)
def test_a_profile_that_is_not_there_is_refused_when_created(
    cri: Cri, pod: Pod, security: dict[str, Any]
) -> None:
    code, text = refusal(lambda: pod.create("true", linux=linux(**security)))
    assert code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)
    assert "apparmor: profile 'not-loaded'" in text
    assert not cri.containers()


@pytest.mark.parametrize("text", ["nonsense", "localhost/", "unconfined/x"])
def test_an_old_spelling_that_is_none(pod: Pod, text: str) -> None:
    code, words = refusal(lambda: pod.create("true", linux=linux(apparmor_profile=text)))
    assert (code, "apparmor_profile" in words) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.skipif(PROBES["apparmor"](), reason="this host has AppArmor")
@pytest.mark.parametrize("security", [*DEFAULTS, {"apparmor": UNCONFINED}])
def test_without_it_the_default_is_best_effort(pod: Pod, security: dict[str, Any]) -> None:
    assert pod.run("echo fine", linux=linux(**security)).output == "fine"


@pytest.mark.kernel("apparmor")
@pytest.mark.parametrize("security", DEFAULTS)
def test_the_default_profile(pod: Pod, security: dict[str, Any]) -> None:
    """Nothing else confines this container."""
    capabilities = pb.Capability(add_capabilities=["SYS_ADMIN"])
    bare: dict[str, Any] = {"seccomp": None, "masked_paths": [], "readonly_paths": []}
    container = pod.start("sleep 100", linux=linux(capabilities=capabilities, **bare, **security))
    assert container.tell(ATTRIBUTE) == "phantom-default (enforce)", "an exec's too"
    assert container.tell("tr -d '\\0' < /proc/1/attr/current") == "phantom-default (enforce)"
    assert container.exec("mount -t tmpfs tmpfs /tmp").exit_code != 0
    for name in ("sys/vm/swappiness", "sys/kernel/panic", "sysrq-trigger", "sys/fs/file-max"):
        assert b"ermission denied" in container.exec(f"echo 1 > /proc/{name}").stderr, name
    assert container.exec("echo 8192 > /proc/sys/kernel/msgmax; kill -0 1; ps; touch /tmp/x").exit_code == 0
    container.stop(timeout=1)


@pytest.mark.kernel("apparmor")
def test_unconfined(pod: Pod, make_pod: PodMaker) -> None:
    assert pod.start("sleep 100", linux=linux(apparmor=UNCONFINED)).tell(ATTRIBUTE) == "unconfined"
    context = pb.LinuxSandboxSecurityContext(privileged=True)
    privileged = make_pod(linux=pb.LinuxPodSandboxConfig(security_context=context))
    assert privileged.start("sleep 100", linux=linux(privileged=True)).tell(ATTRIBUTE) == "unconfined"


@pytest.mark.kernel("apparmor")
@pytest.mark.parametrize("no_new_privs", [False, True])
def test_a_profile_of_the_node(pod: Pod, profile: str, no_new_privs: bool) -> None:
    for security in (
        {"apparmor": localhost(profile)},
        {"apparmor": localhost(f"localhost/{profile}")},
        {"apparmor_profile": f"localhost/{profile}"},
    ):
        container = pod.start("sleep 100", linux=linux(no_new_privs=no_new_privs, **security))
        assert container.tell(ATTRIBUTE) == f"{profile} (enforce)"
        assert container.exec("touch /tmp/x").exit_code != 0
        assert container.exec("touch /root/x").exit_code == 0
