from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import Device
from phantom_cri.plans.devices import STANDARD, dev_block
from phantom_cri.plans.ops import Mkdir, Mknod, Symlink
from phantom_cri.plans.spec import HostDevice
from phantom_cri.requests.devices import ALL_DEVICES, DeviceRule, device_rules, resolve_devices
from tests.unit.requests.asked import container


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (Device(host_path="/dev/null", permissions="rx"), r"devices\[0\].permissions: 'rx'"),
        (Device(host_path="/dev/null", permissions=""), r"devices\[0\].permissions: ''"),
        (Device(host_path="null"), r"devices\[0\].host_path: 'null' is not an absolute path"),
        (Device(host_path="/dev/null", container_path="x"), r"devices\[0\].container_path"),
        (Device(host_path="/dev/none"), r"devices\[0\].host_path: /dev/none: No such file"),
        (Device(host_path="/etc/passwd"), "is not a device node"),
    ],
)
def test_impossible_devices_are_named(device: Device, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        resolve_devices(container(devices=(device,)))


def test_a_folder_without_devices(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="is not a device node and contains none"):
        resolve_devices(container(devices=(Device(host_path=str(tmp_path)),)))


def test_symlinks_are_followed_and_keep_their_name(tmp_path: Path) -> None:
    link = tmp_path / "gpu"
    link.symlink_to("/dev/null")
    config = container(devices=(Device(host_path=str(link), container_path="/dev/gpu0", permissions="rw"),))
    status = os.stat("/dev/null")
    (found,) = resolve_devices(config)
    assert found == HostDevice("/dev/gpu0", status.st_mode, 1, 3, status.st_uid, status.st_gid, "rw")
    assert device_rules(config, [found]) == (DeviceRule("c", 1, 3, "rw"),)


def test_privileged_has_what_the_host_has() -> None:
    config = container(security={"privileged": True})
    found = {device.path: device for device in resolve_devices(config)}
    assert (found["/dev/null"].major, found["/dev/null"].minor) == (1, 3)
    assert not any(path.startswith(("/dev/pts/", "/dev/shm/")) for path in found)
    assert "/dev/console" not in found
    assert device_rules(config, tuple(found.values())) == ALL_DEVICES


def test_the_standard_dev() -> None:
    ops = dev_block(()).ops
    assert [op.path for op in ops if isinstance(op, Mknod)] == [device.path for device in STANDARD]
    assert ops[-1] == Symlink("pts/ptmx", "/dev/ptmx")
    assert not any(isinstance(op, Mkdir) for op in ops)


def test_asked_devices_win_and_get_their_folders() -> None:
    null = HostDevice("/dev/null", stat.S_IFCHR | 0o600, 1, 3)
    card = HostDevice("/dev/dri/by/card0", stat.S_IFCHR | 0o660, 226, 0, 0, 44)
    disk = HostDevice("/dev/dri/disk", stat.S_IFBLK | 0o660, 8, 0)
    ptmx = HostDevice("/dev/ptmx", stat.S_IFCHR | 0o666, 5, 2)
    ops = dev_block((null, card, disk, ptmx)).ops
    nodes = [op for op in ops if isinstance(op, Mknod)]
    assert [op.mode for op in nodes if op.path == "/dev/null"] == [stat.S_IFCHR | 0o600]
    assert [op.path for op in ops if isinstance(op, Mkdir)] == ["/dev/dri", "/dev/dri/by"]
    assert ops.index(Mkdir("/dev/dri/by", 0o755)) < ops.index(
        Mknod("/dev/dri/by/card0", card.mode, 226, 0, 0, 44)
    )
    assert "/dev/ptmx" not in [op.path for op in nodes]  # the container's own devpts has it
