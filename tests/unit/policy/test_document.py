from __future__ import annotations

from pathlib import Path

import pytest

from phantom_cri.errors import ConfigError
from phantom_cri.policy import PolicyBook
from phantom_cri.policy.document import aligned_blocks, read_policy

GOOD = """
name: own
capabilities: [cap_kill]
masked_paths: [/proc/kcore]
readonly_paths: []
seccomp:
  default_errno: EPERM
  groups:
    - {why: because, allow: [read, mseal]}
"""


def written(tmp_path: Path, text: str, name: str = "own") -> Path:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "old, new, named",
    [
        ("name: own", "name: other", "other"),
        ("name: own", "name: own\nsurprise: 1", "surprise"),
        ("why: because", "why: ''", "why"),
        ("why: because, ", "", "why"),
        ("[read, mseal]", "[read, raed]", "raed"),
        ("[read, mseal]", "[read], deny: [write], errno: EPERM", "either allow"),
        ("allow: [read, mseal]", "deny: [read]", "errno"),
        ("allow: [read, mseal]", "deny: [read], errno: ENOPE", "ENOPE"),
        ("[read, mseal]", "[read], alow: [write]", "alow"),
        ("[read, mseal]", "[read], with_capability: SYS_ADMIM", "SYS_ADMIM"),
        ("[read, mseal]", "[read], machines: [x68]", "x68"),
        ("[read, mseal]", "[read], min_kernel: new", "new"),
        ("[read, mseal]", "[read], where: {arg: 6, equals: 1, mask: 1}", "arg 6"),
        ("[read, mseal]", "[read], where: {arg: 0}", "int_in"),
        ("[read, mseal]", "[read], where: {arg: 0, mask: 1}", "where"),
        ("[read, mseal]", "[read], where: {arg: 0, int_in: [5-3]}", "5-3"),
        ("[read, mseal]", "[read], where: {arg: 0, int_in: [x]}", "'x'"),
        ("[cap_kill]", "[cap_kil]", "cap_kil"),
        ("[/proc/kcore]", "[proc/kcore]", "proc/kcore"),
        ("[/proc/kcore]", "[/proc/../kcore]", r"/proc/\.\./kcore"),
        ("EPERM", "1", "default_errno"),
        ("  default_errno", "  sub_architectures: {x86_64: [x87]}\n  default_errno", "x87"),
        ("  default_errno", "  withdraw: [{why: x, syscalls: [read]}]\n  default_errno", "withdraw"),
        ("name: own", "name: own\nextends: ../../etc/passwd", "extends"),
        ("name: own", "name: own\nextends: missing", "missing"),
        ("name: own", "name: [", "own.yaml"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=named):
        read_policy(written(tmp_path, GOOD.replace(old, new, 1)))


def test_withdrawing_what_is_not_there(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    tighter = GOOD.replace("name: own", "name: tighter\nextends: own").replace(
        "  default_errno", "  withdraw: [{why: x, syscalls: [write]}]\n  default_errno"
    )
    with pytest.raises(ConfigError, match="'write'"):
        read_policy(written(tmp_path, tighter, "tighter"))


def test_extending_takes_rules_in_and_some_out(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    tighter = GOOD.replace("name: own", "name: tighter\nextends: own").replace("[read, mseal]", "[write]")
    tighter = tighter.replace("  default_errno", "  withdraw: [{why: x, syscalls: [read]}]\n  default_errno")
    policy = read_policy(written(tmp_path, tighter, "tighter"))
    assert [rule.syscalls for rule in policy.profile.rules] == [("mseal",), ("write",)]


def test_good(tmp_path: Path) -> None:
    policy = read_policy(written(tmp_path, GOOD))
    assert policy.capabilities == {"KILL"}
    assert policy.unmask == "never"
    assert [one.name for one in PolicyBook.load(tmp_path, "own")] == ["own"]
    with pytest.raises(ConfigError, match=r"policy\.default: unknown policy 'other', known are own"):
        PolicyBook.load(tmp_path, "other")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)):
        PolicyBook.load(tmp_path)


@pytest.mark.parametrize("low, high", [(0, 37), (39, 39), (41, 63), (0, 0xFFFFFFFF), (5, 200), (0, 0)])
def test_aligned_blocks_cover_exactly(low: int, high: int) -> None:
    blocks = list(aligned_blocks(low, high))
    probes = {low, high, max(low - 1, 0), min(high + 1, 0xFFFFFFFF), *range(300)}
    for value in probes:
        assert any(value & mask == first for first, mask in blocks) == (low <= value <= high)
