"""The systemd unit: systemd accepts it, the daemon knows its flags, and no setting of it harms pods."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/systemd/phantom-cri.service"
PAGE = ROOT / "docs/kubelet.md"

HARMFUL = (
    "Private",
    "Protect",
    "ReadOnly",
    "ReadWrite",
    "Inaccessible",
    "Root",
    "MountFlags",
    "RuntimeDirectory",
)
"""Beginnings of settings: a mount namespace of the daemon's own, or a state folder that ends with it."""


def settings() -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[key].append(value)
    return found


def test_the_daemon_takes_the_flags_of_the_unit() -> None:
    (line,) = settings()["ExecStart"]
    program, *arguments = shlex.split(line)
    assert Path(program).name == "phantom-cri"
    help_text = subprocess.run(
        [sys.executable, "-m", "phantom_cri", "--help"], capture_output=True, text=True, check=True
    ).stdout
    flags = [argument for argument in arguments if argument.startswith("-")]
    assert flags == ["--config"]
    assert all(f"{flag} " in help_text for flag in flags)


def test_it_sets_nothing_that_would_end_or_blind_pods() -> None:
    found = settings()
    assert found["KillMode"] == ["process"]
    assert [key for key in found if key.startswith(HARMFUL)] == []


def test_its_type_is_one_that_the_daemon_supports() -> None:
    assert settings()["Type"] == ["exec"], "the daemon does not call sd_notify(3)"


def test_the_page_names_the_program_where_the_unit_looks_for_it() -> None:
    (line,) = settings()["ExecStart"]
    program, _, file = shlex.split(line)
    page = PAGE.read_text()
    assert f" {Path(program).parents[1]}\n" in page, "the link that the install commands make"
    assert f"`{file}`" in page


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this host")
def test_systemd_takes_it(tmp_path: Path) -> None:
    (line,) = settings()["ExecStart"]
    here = Path(sys.executable).with_name("phantom-cri")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(shlex.split(line)[0], str(here)))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
