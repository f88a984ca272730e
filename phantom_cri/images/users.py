"""The user of a container's process, from its image and the request (CRI security context, OCI `User`).

Names are looked up in the image's own /etc/passwd and /etc/group. The parsed files of a layer stack are
cached, since every container creation needs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from phantom_cri.errors import InvalidArgument
from phantom_cri.images import rootfs
from phantom_cri.model import ContainerSecurity, User

_ID_LIMIT = 2**31 - 1
_NUMBER = re.compile(r"\+?[0-9]{1,20}")  # as Go's strconv.Atoi, without negative numbers
_FILE_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(slots=True)
class _Accounts:
    """passwd(5) and group(5) of one image; the first line wins, as in libc."""

    by_name: dict[str, _Account] = field(default_factory=dict)
    by_uid: dict[int, _Account] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    member_of: dict[str, list[int]] = field(default_factory=dict)


def resolve(
    layers: Sequence[str],
    config_user: str,
    run_as_user: int | None,
    run_as_group: int | None,
    run_as_username: str,
    supplemental_groups: Sequence[int],
    policy: Literal["merge", "strict"],
) -> User:
    """The user to run as in an image with `layers` (absolute folders, top first).

    run_as_username or run_as_user, else `config_user` (the image's `User`), else 0. The primary
    group is run_as_group, else the image's (with the image's user), else passwd's, else 0.
    "merge" adds the user's groups in /etc/group; "strict" does not. The request itself has been checked.
    Raises InvalidArgument naming what the image lacks or has wrong.
    """
    accounts = _accounts(tuple(layers))
    gid: int | None = None
    if run_as_username:
        account = accounts.by_name.get(run_as_username)
        if account is None:
            raise InvalidArgument(
                f"run_as_username {run_as_username!r}: no such user in the image's /etc/passwd"
            )
    elif run_as_user is not None:
        account = _by_uid(accounts, run_as_user)
    else:
        account, gid = _from_image(accounts, config_user)
    if run_as_group is not None:
        gid = run_as_group
    gid = account.gid if gid is None else gid
    extra: Iterable[int] = (
        accounts.member_of.get(account.name, ()) if policy == "merge" and account.name else ()
    )
    others = sorted({*extra, *supplemental_groups} - {gid})  # the order of getgroups(2)
    return User(account.uid, gid, (gid, *others), account.home)


def resolve_user(layers: Sequence[str], config_user: str, security: ContainerSecurity) -> User:
    """`resolve`, from a container's security context."""
    return resolve(
        layers,
        config_user,
        security.run_as_user,
        security.run_as_group,
        security.run_as_username,
        security.supplemental_groups,
        security.supplemental_groups_policy,
    )


def _from_image(accounts: _Accounts, text: str) -> tuple[_Account, int | None]:
    """`user[:group]`, names or numbers.

    A numeric text is always an id, as in containerd, even if the image has an account with that name: the
    kubelet's runAsNonRoot check uses the number.
    """
    name, _, group = text.partition(":")
    if not name:
        account = _by_uid(accounts, 0)
    elif _NUMBER.fullmatch(name):
        account = _by_uid(accounts, _checked(int(name), "image user"))
    elif name in accounts.by_name:
        account = accounts.by_name[name]
    else:
        raise InvalidArgument(f"image user {text!r}: no user {name!r} in the image's /etc/passwd")
    if not group:
        return account, None
    if _NUMBER.fullmatch(group):
        return account, _checked(int(group), "image group")
    if group in accounts.groups:
        return account, accounts.groups[group]
    raise InvalidArgument(f"image user {text!r}: no group {group!r} in the image's /etc/group")


def _by_uid(accounts: _Accounts, uid: int) -> _Account:
    return accounts.by_uid.get(uid) or _Account("", uid, 0, "/")


def _checked(number: int, what: str) -> int:
    if not 0 <= number <= _ID_LIMIT:
        raise InvalidArgument(f"{what} {number} is not between 0 and {_ID_LIMIT}")
    return number


@lru_cache(maxsize=512)
def _accounts(layers: tuple[str, ...]) -> _Accounts:
    """Layer folders never change and are named by their content, so the result can be cached."""
    found = _Accounts()
    for fields in _lines(layers, "/etc/passwd", 7):
        uid, gid = _number(fields[2]), _number(fields[3])
        if fields[0] and uid is not None and gid is not None:
            account = _Account(fields[0], uid, gid, fields[5] or "/")
            found.by_name.setdefault(account.name, account)
            found.by_uid.setdefault(uid, account)
    for fields in _lines(layers, "/etc/group", 4):
        gid = _number(fields[2])
        if fields[0] and gid is not None:
            found.groups.setdefault(fields[0], gid)
            for member in filter(None, fields[3].split(",")):
                found.member_of.setdefault(member.strip(), []).append(gid)
    return found


def _lines(layers: tuple[str, ...], path: str, count: int) -> Iterable[list[str]]:
    """Colon-separated lines; short ones are padded (a group without members may lack its last colon)."""
    content = rootfs.read(layers, path, limit=_FILE_LIMIT) or b""
    for line in content.decode("utf-8", "surrogateescape").splitlines():
        fields = line.strip().split(":")
        if len(fields) >= 3 and not line.startswith("#"):
            yield fields + [""] * (count - len(fields))


def _number(text: str) -> int | None:
    valid = text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= _ID_LIMIT
    return int(text) if valid else None
