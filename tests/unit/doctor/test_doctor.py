"""What a check makes of failures, that examining keeps nothing, and the kernel's type information."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from phantom_cri import doctor
from phantom_cri.doctor import Check, examine, runnable
from phantom_cri.doctor.btf import KERNEL, function_id
from phantom_cri.doctor.probes import PROBES, Degraded, Lacking, Probe, attempt
from phantom_cri.errors import DeadlineExceeded, Internal


def _fails(error: Exception) -> Probe:
    def run() -> str:
        raise error

    return Probe("x", run)


def test_a_refusal_is_missing_with_its_errno() -> None:
    check = attempt(_fails(PermissionError(13, "Permission denied")))
    assert check.state == "missing"
    assert check.detail.startswith("EACCES (Permission denied)")


def test_a_refusal_with_another_way_is_degraded_and_says_which() -> None:
    probe = Probe("x", _fails(Lacking("no x here")).run, instead="y does it")
    assert attempt(probe) == Check("x", "degraded", "no x here: y does it")


def test_less_than_all_is_degraded() -> None:
    probe = Probe("x", _fails(Degraded("half an x")).run, instead="slower", required=True)
    assert attempt(probe) == Check("x", "degraded", "half an x: slower", required=True)


def test_what_is_not_used_is_said_to_be_so_whether_it_is_there_or_not() -> None:
    there = attempt(Probe("x", lambda: "an x", used=False))
    gone = attempt(Probe("x", _fails(PermissionError(13, "Permission denied")).run, used=False))
    assert there == Check("x", "unused", "an x; not used by this version")
    assert gone.state == "unused" and gone.detail.startswith("EACCES (Permission denied)")
    assert runnable([there, gone])


def test_only_features_with_a_user_have_a_consequence() -> None:
    unused = {probe.name for probe in PROBES if not probe.used}
    assert unused == {"Landlock", "BPF LSM", "io_uring", "PSI triggers"}
    for word in ("landlock", "io_uring", "lsm", "trigger"):
        assert not any(word in probe.instead.lower() for probe in PROBES), word


def test_only_a_required_lack_stops_pods() -> None:
    optional, required = Check("a", "missing", ""), Check("b", "missing", "", required=True)
    assert runnable([optional, Check("c", "degraded", "", required=True)])
    assert not runnable([optional, required])


def _child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Put a shell script in the place of the process that tries."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))


async def test_a_child_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _child(monkeypatch, tmp_path, "echo a first line >&2; echo the reason >&2; exit 3")
    with pytest.raises(Internal, match="doctor: exit code 3: the reason"):
        await examine()


async def test_a_child_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _child(monkeypatch, tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    monkeypatch.setattr(doctor, "EXAMINATION_SECONDS", 1.5)
    with pytest.raises(DeadlineExceeded, match=r"no answer within 1\.5 s"):
        await examine()
    child = (tmp_path / "pid").read_text().strip()
    assert not os.path.exists(f"/proc/{child}")  # noqa: ASYNC240 - procfs does not block


async def test_examining_answers_all_and_keeps_nothing() -> None:
    before = _seen_of_us()
    checks = await examine()
    assert [check.name for check in checks] == [probe.name for probe in PROBES]
    assert {check.name: check for check in checks}["kernel"].detail.startswith(os.uname().release)
    assert _seen_of_us() == before


def _seen_of_us() -> tuple[dict[str, str], list[str]]:
    """Our namespaces, and the mounts at the places that the probes use."""
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    places = [place for place in mounted if place in ("/tmp", "/sys/kernel/security")]
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}, places


def test_no_two_probes_share_a_name() -> None:
    assert len({probe.name for probe in PROBES}) == len(PROBES)


def _types(*records: bytes, strings: bytes) -> bytes:
    body = b"".join(records)
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings)) + body + strings


def test_finds_a_function_behind_types_of_every_length() -> None:
    strings = b"\0wanted\0other_wanted\0"
    integer = struct.pack("=IIII", 0, 1 << 24, 4, 0)
    structure = struct.pack("=III", 0, 4 << 24 | 2, 8) + bytes(24)
    prototype = struct.pack("=III", 0, 13 << 24 | 1, 0) + bytes(8)
    other, wanted = (struct.pack("=III", offset, 12 << 24, 3) for offset in (8, 1))
    types = _types(integer, structure, prototype, other, wanted, strings=strings)
    assert function_id("wanted", types) == 5
    assert function_id("other_wanted", types) == 4
    with pytest.raises(OSError, match="no function absent"):
        function_id("absent", types)


def test_refuses_what_is_no_type_information() -> None:
    with pytest.raises(OSError, match="not BTF"):
        function_id("wanted", bytes(64))


@pytest.mark.skipif(not KERNEL.exists(), reason="this kernel tells no types")
def test_finds_a_function_of_this_kernel() -> None:
    assert function_id("vfs_read") > 0
