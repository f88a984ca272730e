"""Options of mount(8) in the kernel's terms, and those that are none."""

from __future__ import annotations

import pytest

from phantom_cri.errors import InvalidArgument
from phantom_cri.plans import constants
from phantom_cri.plans.mount_options import MountOptions, OverlayOptions, overlay_options, read_options


def read(type: str, text: str) -> MountOptions:
    return read_options(type, text.split(",") if text else (), "f")


@pytest.mark.parametrize("option", ["size=1k", "sync", "lowerdir=/a", "RO", "", "ro ", "rbound", "remount"])
def test_what_is_no_option_of_a_bind(option: str) -> None:
    for type, options in (("bind", [option]), ("none", ["ro", option, "rbind"])):
        with pytest.raises(InvalidArgument) as refused:
            read_options(type, options, "mounts[3].options")
        assert str(refused.value) == f"mounts[3].options: {option!r} is not an option of a bind mount"


OVERLAY = "lowerdir=/b:/a,upperdir=/u,workdir=/w"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "lowerdir: '' is not an absolute path"),
        ("lowerdir=", "lowerdir: '' is not an absolute path"),
        ("lowerdir=/a:", "lowerdir: '' is not an absolute path"),
        ("lowerdir=a", "lowerdir: 'a' is not an absolute path"),
        ("lowerdir=/a\\:b", "lowerdir: '/a\\\\' is not an absolute path without a backslash"),
        ("lowerdir=/a,upperdir=u,workdir=/w", "upperdir: 'u' is not an absolute path"),
        ("lowerdir=/a,upperdir=/u,workdir=w", "workdir: 'w' is not an absolute path"),
        ("lowerdir=/a,workdir=/w", "upperdir='' and workdir='/w': both or neither"),
        (f"{OVERLAY},bogus=1", "'bogus=1' is not a supported option of overlay"),
        (f"{OVERLAY},uidmap=0:1:2", "'uidmap=0:1:2' is not a supported option of overlay"),
        (f"{OVERLAY},loop", "'loop' is not a supported option of overlay"),
        (f"{OVERLAY},volatile=1", "'volatile=1' is not a supported option of overlay"),
    ],
)
def test_what_is_no_overlay(text: str, told: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        overlay_options(read("overlay", text).own, "root.mounts[0].options")
    assert str(refused.value).startswith(f"root.mounts[0].options: {told}")


def test_a_comma_would_be_another_option() -> None:
    with pytest.raises(InvalidArgument, match="'index=off,volatile'"):
        overlay_options(["index=off,volatile", "lowerdir=/a"], "f")


def test_an_overlay() -> None:
    found = overlay_options(read("overlay", f"index=off,ro,{OVERLAY},userxattr,volatile").own, "f")
    assert found == OverlayOptions(("/b", "/a"), "/u", "/w", True, ("index=off", "userxattr"))
    assert overlay_options(["lowerdir=/a"], "f") == OverlayOptions(("/a",), "", "", False, ())


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        ("", 0),
        ("defaults", 0),
        ("ro", constants.MOUNT_ATTR_RDONLY),
        ("ro,rw", 0),
        ("rw,ro,nosuid,suid,nodev", constants.MOUNT_ATTR_RDONLY | constants.MOUNT_ATTR_NODEV),
        ("noexec,nosymfollow", constants.MOUNT_ATTR_NOEXEC | constants.MOUNT_ATTR_NOSYMFOLLOW),
        ("noatime", constants.MOUNT_ATTR_NOATIME),
        ("noatime,strictatime", constants.MOUNT_ATTR_STRICTATIME),
        ("strictatime,noatime,nodiratime", constants.MOUNT_ATTR_NOATIME | constants.MOUNT_ATTR_NODIRATIME),
        ("strictatime,relatime", 0),
        ("strictatime,norelatime", constants.MOUNT_ATTR_STRICTATIME),
    ],
)
def test_attributes(text: str, attributes: int) -> None:
    assert read("bind", text).attributes == attributes
    assert read("bind", ",".join(f"r{word}" for word in text.split(",") if word != "defaults" and word)) == (
        MountOptions(recursive=attributes, binds=True)
    )


@pytest.mark.parametrize(
    ("type", "text", "binds", "submounts"),
    [
        ("bind", "", True, False),
        ("bind", "rbind", True, True),
        ("bind", "rbind,bind", True, False),
        ("none", "bind,ro", True, False),
        ("", "rbind", True, True),
        ("tmpfs", "", False, False),
    ],
)
def test_binds(type: str, text: str, binds: bool, submounts: bool) -> None:
    found = read(type, text)
    assert (found.binds, found.submounts, found.own) == (binds, submounts, ())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("private", constants.MS_PRIVATE),
        ("rprivate", constants.MS_PRIVATE | constants.MS_REC),
        ("private,rslave", constants.MS_SLAVE | constants.MS_REC),
        ("shared", constants.MS_SHARED),
        ("runbindable", constants.MS_UNBINDABLE | constants.MS_REC),
    ],
)
def test_propagation(text: str, kind: int) -> None:
    assert read("bind", text).propagation == kind


def test_what_is_the_file_systems_own() -> None:
    """Read-only is said to both: a device whose mount alone is read-only is written to all the same."""
    found = read("ext4", "ro,sync,lazytime,nosuid,data=ordered,noload")
    assert found.attributes == constants.MOUNT_ATTR_RDONLY | constants.MOUNT_ATTR_NOSUID
    assert found.own == ("sync", "lazytime", "data=ordered", "noload", "ro")
    assert read("ext4", "async,nolazytime,ro,rw").own == ()
