"""Compiled policies on disk: what comes back is what was kept, or nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from phantom_cri.errors import DataLoss, FailedPrecondition
from phantom_cri.model import CapabilitySets, CompiledPolicy, PolicyRef
from phantom_cri.policy import KeptPolicies, reference

POLICY = CompiledPolicy(
    name="own",
    capabilities=CapabilitySets(7, 3, 3, 1, 1),
    no_new_privs=True,
    seccomp=bytes(range(256)),
    seccomp_flags=2,
    masked_paths=("/proc/kcore", "/with ü"),
    readonly_paths=("/proc/sys",),
    apparmor="web",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "policies"


def test_another_daemon_reads_what_was_kept(folder: Path) -> None:
    ref = reference(POLICY)
    KeptPolicies(str(folder)).keep(POLICY)
    assert KeptPolicies(str(folder)).read(ref) == POLICY
    assert ref.name == "own"
    (file,) = folder.iterdir()
    assert file.name == f"{hashlib.sha256(file.read_bytes()).hexdigest()}.json" == f"{ref.hash}.json"
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


def test_it_is_written_once(folder: Path) -> None:
    kept = KeptPolicies(str(folder))
    kept.keep(POLICY)
    (file,) = folder.iterdir()
    before = file.stat()
    kept.keep(CompiledPolicy(**{name: getattr(POLICY, name) for name in POLICY.__struct_fields__}))
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(kept) == 1


@pytest.mark.parametrize("content", [b"", b"{}", b"{", b"\xff"])
def test_a_damaged_one_is_not_used(folder: Path, content: bytes) -> None:
    kept = KeptPolicies(str(folder))
    kept.keep(POLICY)
    next(folder.iterdir()).write_bytes(content)
    with pytest.raises(DataLoss, match=r"policy 'own': .* is damaged"):
        kept.read(reference(POLICY))


def test_one_that_is_gone_is_not_replaced_by_another(folder: Path) -> None:
    with pytest.raises(DataLoss, match=r"policy 'own': .* is gone"):
        KeptPolicies(str(folder)).read(reference(POLICY))


def test_a_field_of_a_newer_daemon_is_not_left_out(folder: Path) -> None:
    """A restriction that this daemon does not know, it cannot apply."""
    content = b'{"name":"own","landlock":["/"]}'
    digest = hashlib.sha256(content).hexdigest()
    folder.mkdir()
    (folder / f"{digest}.json").write_bytes(content)
    with pytest.raises(FailedPrecondition, match=r"of a newer phantom-cri: .* unknown field `landlock`"):
        KeptPolicies(str(folder)).read(PolicyRef(name="own", hash=digest))


def test_what_nobody_uses_goes_and_can_come_again(folder: Path) -> None:
    kept, other = KeptPolicies(str(folder)), CompiledPolicy(name="other")
    for policy in (POLICY, other):
        kept.keep(policy)
    (folder / f"{reference(other).hash}.json.123.tmp").write_bytes(b"half of a te")
    kept.drop_unused({reference(POLICY).hash})
    assert [file.stem for file in folder.iterdir()] == [reference(POLICY).hash]
    kept.keep(other)
    assert kept.read(reference(other)) == other
    fresh = KeptPolicies(str(folder))
    fresh.drop_unused({reference(other).hash, "0" * 64})
    assert [file.stem for file in folder.iterdir()] == [reference(other).hash]
    assert len(fresh) == 1


def test_a_folder_that_is_not_there_holds_nothing(folder: Path) -> None:
    KeptPolicies(str(folder)).drop_unused(())
    assert not folder.exists()
