"""Users by the rules of CRI and the image config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from phantom_cri.errors import InvalidArgument
from phantom_cri.images import resolve_user
from phantom_cri.model import ContainerSecurity, User

PASSWD = """\
# comment
root:x:0:0:root:/root:/bin/sh
web:x:33:33::/var/www:/bin/false
dev:x:1000:1000::/home/dev:/bin/sh
dev:x:2000:2000::/second:/bin/sh
1234:x:77:78::/odd:
broken
huge:x:99999999999:0::/:
"""
GROUP = """\
root:x:0:
web:x:33:
extra:x:50000:dev,web
more:x:50001:other, dev
nocolon:x:7
"""


@pytest.fixture
def layers(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text(PASSWD)
    (tmp_path / "etc" / "group").write_text(GROUP)
    return (str(tmp_path),)


@pytest.mark.parametrize(
    ("config", "security", "expected"),
    [
        ("", {}, User(0, 0, (0,), "/root")),
        ("web", {}, User(33, 33, (33, 50000), "/var/www")),
        ("33", {}, User(33, 33, (33, 50000), "/var/www")),
        ("4242", {}, User(4242, 0, (0,), "/")),
        ("web:extra", {}, User(33, 50000, (50000,), "/var/www")),
        ("web:1004", {}, User(33, 1004, (1004, 50000), "/var/www")),
        ("1003:1004", {}, User(1003, 1004, (1004,), "/")),
        (":33", {}, User(0, 33, (33,), "/root")),
        ("1234", {}, User(1234, 0, (0,), "/")),  # there is an account of that name
        ("+33", {}, User(33, 33, (33, 50000), "/var/www")),
        ("dev", {}, User(1000, 1000, (1000, 50000, 50001), "/home/dev")),
        ("web", {"run_as_user": 0}, User(0, 0, (0,), "/root")),
        ("web:1004", {"run_as_user": 1000}, User(1000, 1000, (1000, 50000, 50001), "/home/dev")),
        ("", {"run_as_user": 7}, User(7, 0, (0,), "/")),
        ("", {"run_as_username": "web", "run_as_group": 5}, User(33, 5, (5, 50000), "/var/www")),
        (
            "",
            {"run_as_user": 1000, "supplemental_groups": (1234, 50000)},
            User(1000, 1000, (1000, 1234, 50000, 50001), "/home/dev"),
        ),
        (
            "",
            {"run_as_user": 1000, "supplemental_groups": (1234,), "supplemental_groups_policy": "strict"},
            User(1000, 1000, (1000, 1234), "/home/dev"),
        ),
    ],
)
def test_resolved(layers: tuple[str, ...], config: str, security: dict[str, Any], expected: User) -> None:
    assert resolve_user(layers, config, ContainerSecurity(**security)) == expected


@pytest.mark.parametrize(
    ("config", "security", "names"),
    [
        ("nobody-here", {}, "nobody-here"),
        ("web:nogroup-here", {}, "nogroup-here"),
        ("huge", {}, "huge"),
        ("99999999999", {}, "99999999999"),
        ("-1", {}, "-1"),
        ("٣", {}, "٣"),
        ("", {"run_as_username": "who"}, "run_as_username 'who'"),
    ],
)
def test_refused(layers: tuple[str, ...], config: str, security: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidArgument, match=names):
        resolve_user(layers, config, ContainerSecurity(**security))


def test_an_image_without_files_has_numbers_only() -> None:
    assert resolve_user((), "5", ContainerSecurity()) == User(5, 0, (0,), "/")
    with pytest.raises(InvalidArgument):
        resolve_user((), "root", ContainerSecurity())


def test_passwd_that_is_a_link_out_of_the_image_stays_inside(tmp_path: Path) -> None:
    (tmp_path / "layer" / "etc").mkdir(parents=True)
    (tmp_path / "outside").write_text("evil:x:5:5::/:\n")
    (tmp_path / "layer" / "etc" / "passwd").symlink_to("../../outside")
    with pytest.raises(InvalidArgument):
        resolve_user((str(tmp_path / "layer"),), "evil", ContainerSecurity())
