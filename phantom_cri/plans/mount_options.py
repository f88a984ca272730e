"""Translates mount options of mount(8) and the OCI runtime spec to the kernel's flags.

Options that are not generic are the file system's own: overlayfs's are checked here; for any other file
system, the kernel refuses unknown ones by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from phantom_cri.errors import InvalidArgument
from phantom_cri.plans import constants

_ATTRIBUTES = {
    "ro": (constants.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, constants.MOUNT_ATTR_RDONLY),
    "nosuid": (constants.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, constants.MOUNT_ATTR_NOSUID),
    "nodev": (constants.MOUNT_ATTR_NODEV, 0),
    "dev": (0, constants.MOUNT_ATTR_NODEV),
    "noexec": (constants.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, constants.MOUNT_ATTR_NOEXEC),
    "noatime": (constants.MOUNT_ATTR_NOATIME, constants.MOUNT_ATTR_ATIME),
    "atime": (0, constants.MOUNT_ATTR_NOATIME),
    "relatime": (0, constants.MOUNT_ATTR_ATIME),
    "norelatime": (0, 0),
    "strictatime": (constants.MOUNT_ATTR_STRICTATIME, constants.MOUNT_ATTR_ATIME),
    "nostrictatime": (0, constants.MOUNT_ATTR_STRICTATIME),
    "nodiratime": (constants.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, constants.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (constants.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, constants.MOUNT_ATTR_NOSYMFOLLOW),
}
"""The bits that each sets, and those that it clears of earlier ones (mount(8), "Filesystem-independent")."""

_RECURSIVE = {f"r{name}": change for name, change in _ATTRIBUTES.items()}
"""The same, recursive (OCI runtime spec, "Linux mount options")."""

_PROPAGATIONS = {
    **(_KINDS := {word: kind for kind, word in constants.PROPAGATIONS.items()}),
    **{f"r{word}": kind | constants.MS_REC for word, kind in _KINDS.items()},
}

_SUPERBLOCK = {"sync": "sync", "async": "", "dirsync": "dirsync", "lazytime": "lazytime", "nolazytime": ""}
"""Options of the file system, not of one mount; the empty ones are the default."""


KNOWN = tuple(sorted({*_ATTRIBUTES, *_RECURSIVE, *_PROPAGATIONS, *_SUPERBLOCK, "bind", "rbind", "defaults"}))
"""Beside those of each file system."""


class MountOptions(NamedTuple):
    """`attributes`: MOUNT_ATTR_* of the mount, `recursive`: of its submounts too; `propagation`: MS_* or 0.

    binds: an existing tree is mounted; `submounts`: with its submounts. own: options of the file system.
    """

    attributes: int = 0
    recursive: int = 0
    propagation: int = 0
    binds: bool = False
    submounts: bool = False
    own: tuple[str, ...] = ()


class OverlayOptions(NamedTuple):
    """`lower`: top first; `upper` and `work`: both or neither; `more`: further options of overlayfs."""

    lower: tuple[str, ...]
    upper: str
    work: str
    is_volatile: bool
    more: tuple[str, ...]


def read_options(type: str, options: Sequence[str], field: str) -> MountOptions:
    """Of contradictory options the last one wins. Raises InvalidArgument naming field and option."""
    attributes = recursive = propagation = 0
    binds, submounts = type == "bind", False
    own: list[str] = []
    for option in options:
        if option in _ATTRIBUTES:
            attributes = _changed(attributes, _ATTRIBUTES[option])
        elif option in _RECURSIVE:
            recursive = _changed(recursive, _RECURSIVE[option])
        elif option in _PROPAGATIONS:
            propagation = _PROPAGATIONS[option]
        elif option in ("bind", "rbind"):
            binds, submounts = True, option == "rbind"
        elif option != "defaults":
            own.append(option)
    if binds and own:
        raise InvalidArgument(f"{field}: {own[0]!r} is not an option of a bind mount")
    if not binds:
        own = [_SUPERBLOCK.get(option, option) for option in own]
        own += ["ro"] if attributes & constants.MOUNT_ATTR_RDONLY else []
    return MountOptions(attributes, recursive, propagation, binds, submounts, tuple(filter(None, own)))


def _changed(attributes: int, change: tuple[int, int]) -> int:
    sets, clears = change
    return attributes & ~clears | sets


_OVERLAY = {"index", "metacopy", "redirect_dir", "xino", "nfs_export", "uuid", "verity", "userxattr"}


def overlay_options(own: Sequence[str], field: str) -> OverlayOptions:
    """Raises InvalidArgument naming `field` and the option that is wrong or missing."""
    folders = {"lowerdir": "", "upperdir": "", "workdir": ""}
    more: list[str] = []
    is_volatile = False
    for option in own:
        name, _, value = option.partition("=")
        if name in folders:
            folders[name] = value
        elif name in _OVERLAY and "," not in value:
            more.append(option)
        elif option == "volatile":
            is_volatile = True
        elif option != "ro":  # set by the mount's attributes
            raise InvalidArgument(f"{field}: {option!r} is not a supported option of overlay")
    lower, upper, work = folders.values()
    _check_folders(lower, upper, work, field)
    return OverlayOptions(tuple(lower.split(":")), upper, work, is_volatile, tuple(more))


def _check_folders(lower: str, upper: str, work: str, field: str) -> None:
    if bool(upper) != bool(work):
        raise InvalidArgument(f"{field}: upperdir={upper!r} and workdir={work!r}: both or neither")
    named = [("lowerdir", path) for path in lower.split(":")]
    for name, path in (*named, *[("upperdir", upper), ("workdir", work)][: 2 * bool(upper)]):
        # The ways to mount an overlay treat a backslash differently (native/overlay.c).
        if not path.startswith("/") or "\\" in path:
            raise InvalidArgument(f"{field}: {name}: {path!r} is not an absolute path without a backslash")
