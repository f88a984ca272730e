"""Which AppArmor profile a container runs under, and that ours is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from phantom_cri.errors import FailedPrecondition, Internal, InvalidArgument
from phantom_cri.model import ContainerSecurity, SecurityProfile
from phantom_cri.policy import AppArmor, apparmor

PROFILES = Path(__file__).parents[3] / "policies"


def security(kind: Any = None, name: str = "", **fields: Any) -> ContainerSecurity:
    profile = SecurityProfile(kind=kind, localhost_ref=name) if kind else None
    return ContainerSecurity(apparmor=profile, **fields)


@pytest.fixture
def host(tmp_path: Path) -> AppArmor:
    listed = tmp_path / "profiles"
    listed.write_text("phantom-default (enforce)\nwith (a) word (complain)\n/usr/bin/man (enforce)\n")
    return AppArmor(True, "phantom-default", listed)


@pytest.mark.parametrize(
    "name", ["unknown", "with (a) word (complain)", "", "phantom-default (enforce)", "a\nb"]
)
def test_a_profile_that_is_not_loaded(host: AppArmor, name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"security_context\.apparmor: profile .* is not loaded"):
        host.profile_of(security("localhost", name))


def test_a_host_without() -> None:
    host = AppArmor(False)
    with pytest.raises(FailedPrecondition, match="'web': AppArmor is not enabled on this host"):
        host.profile_of(security("localhost", "web"))
    with pytest.raises(FailedPrecondition, match="'web'"):
        host.profile_of(security("localhost", "web", privileged=True))
    assert host.profile_of(security("runtime_default")) == host.profile_of(security("unconfined")) == ""
    assert host.profile_of(security()) == ""


def test_profiles(host: AppArmor) -> None:
    assert host.profile_of(security()) == "phantom-default"
    assert host.profile_of(security("runtime_default")) == "phantom-default"
    assert host.profile_of(security("runtime_default", privileged=True)) == ""
    assert host.profile_of(security(privileged=True)) == ""
    assert host.profile_of(security("unconfined")) == ""
    assert host.profile_of(security("localhost", "with (a) word")) == "with (a) word"
    assert host.profile_of(security("localhost", "/usr/bin/man", privileged=True)) == "/usr/bin/man"


def test_a_host_whose_profiles_cannot_be_read(tmp_path: Path) -> None:
    host = AppArmor(True, "", tmp_path / "missing")
    with pytest.raises(Internal, match="missing: ENOENT"):
        host.profile_of(security("localhost", "web"))


@pytest.mark.parametrize(("content", "expected"), [("Y\n", True), ("N\n", False), (None, False)])
def test_whether_it_is_enabled(tmp_path: Path, content: str | None, expected: bool) -> None:
    if content is not None:
        (tmp_path / "enabled").write_text(content)
    assert apparmor.enabled(tmp_path / "enabled") is expected


def test_what_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Internal, match=r"apparmor_parser .*/profile: .*No such file"):
        apparmor.load(tmp_path / "profile")
    (tmp_path / "apparmor_parser").write_text("#!/bin/sh\necho it is wrong >&2\nexit 1\n")
    (tmp_path / "apparmor_parser").chmod(0o755)
    with pytest.raises(Internal, match=r"apparmor_parser .*: it is wrong"):
        apparmor.load(tmp_path / "profile")


@pytest.mark.skipif(shutil.which("apparmor_parser") is None, reason="apparmor_parser is not installed")
def test_the_default_profile_is_one() -> None:
    command = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", "--names"]
    command.append(str(PROFILES / apparmor.DEFAULT_PROFILE))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [apparmor.DEFAULT_PROFILE]
