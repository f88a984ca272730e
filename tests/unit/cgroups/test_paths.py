from __future__ import annotations

import pytest

from phantom_cri.cgroups import pod_path
from phantom_cri.cgroups.paths import parents, relative
from phantom_cri.errors import InvalidArgument


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//a",
        "/a//b",
        "/a/../b",
        "..",
        "/a/.",
        "/a\n/b",
        "/a\0",
        "/\x7f",
        "/" + "a" * 256,
        "/a" * 600,
    ],
)
def test_refused_paths(path: str) -> None:
    with pytest.raises(InvalidArgument, match="cgroup path"):
        relative(path)


@pytest.mark.parametrize("member", ["", "a/b", "..", "a\n", ".hidden", "a" * 200])
def test_refused_members(member: str) -> None:
    with pytest.raises(InvalidArgument, match="cgroup name"):
        pod_path("/kubepods", member)


def test_paths() -> None:
    assert relative("/kubepods/pod..1/c/") == "kubepods/pod..1/c"
    assert parents("a/b/c") == ["a", "a/b"]
    assert pod_path("", "c1") == "/phantom/c1"
    assert pod_path("/kubepods/pod1/", "c1") == "/kubepods/pod1/c1"
