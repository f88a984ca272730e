"""Roots and mounts as containerd's snapshotters and OCI specs write them; nothing is mounted on the host."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phantom_cri.errors import InvalidArgument, PhantomError
from phantom_cri.fragments import LaunchError
from phantom_cri.model import InjectedHook, User
from phantom_cri.plans import ContainerSpec, GivenMount, Hooks, MountRoot, Process
from tests.e2e.launch.pod import USUAL, Pod, open_fds, text_of

pytestmark = pytest.mark.root


def spec_of(script: str, *mounts: GivenMount, **fields: Any) -> ContainerSpec:
    """A container that runs a shell script, its root made of `mounts`."""
    process = Process(("sh", "-c", script), ("PATH=/usr/bin:/bin",), "/")
    made = {"process": process, "user": User(groups=(0,)), "root": MountRoot(mounts), "policy": USUAL}
    return ContainerSpec(**(made | fields))


def bind(source: Path | str, target: str = "", *options: str) -> GivenMount:
    return GivenMount("bind", str(source), target, options or ("rbind", "rw"))


@pytest.fixture
def tree(rootfs: Path, tmp_path: Path) -> Path:
    """A root of this test's own, with all mount points in it."""
    copied = shutil.copytree(rootfs, tmp_path / "tree", symlinks=True, copy_function=os.link)
    for name in ("proc", "dev", "sys"):
        (copied / name).mkdir(exist_ok=True)
    return copied


@pytest.fixture
def layers(rootfs: Path, tmp_path: Path) -> dict[str, Path]:
    """Folders of an overlay over busybox, whose two layers win over each other."""
    found = {name: tmp_path / name for name in ("top", "low", "upper", "work")}
    for folder in found.values():
        folder.mkdir()
    for name in ("top", "low"):
        (found[name] / "winner").write_text(f"{name}\n")
        (found[name] / f"only-{name}").touch()
    return found | {"root": rootfs}


def overlay(layers: dict[str, Path], *options: str, upper: bool = True) -> GivenMount:
    lower = ":".join(str(layers[name]) for name in ("top", "low", "root"))
    folders = (f"upperdir={layers['upper']}", f"workdir={layers['work']}") if upper else ()
    return GivenMount("overlay", "overlay", "/", (*options, *folders, f"lowerdir={lower}"))


def mounts_seen(pod: Pod, folder: Path) -> list[str]:
    """All mounts of the fragment, and those of the host that have to do with `folder`."""
    of_host = [line for line in text_of("/proc/self/mountinfo").splitlines() if str(folder) in line]
    return of_host + text_of(f"/proc/{pod.spawned.process.pid}/mountinfo").splitlines()


@pytest.fixture(autouse=True)
def _nothing_stays_mounted(pod: Pod, tmp_path: Path) -> Iterator[None]:
    before = mounts_seen(pod, tmp_path)
    yield
    assert mounts_seen(pod, tmp_path) == before


async def output(pod: Pod, spec: ContainerSpec) -> list[str]:
    exit, lines = await pod.run("a", spec)
    assert exit.code == 0, lines
    return lines


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A tmpfs on the host, with a file in it."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    (folder / "file").touch()
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def block_device(tree: Path, image: Path) -> Iterator[str]:
    """A loop device with a copy of `tree` on ext4."""
    subprocess.run(["mkfs.ext4", "-q", "-d", str(tree), str(image), "256M"], check=True)
    command = ["losetup", "--find", "--show", str(image)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


ROOT_LINE = "grep ' / / ' /proc/self/mountinfo"

# ---- roots


@pytest.mark.parametrize("options", [(), ("index=off",), ("index=off", "volatile", "noatime", "nosuid")])
async def test_an_overlay(pod: Pod, layers: dict[str, Path], options: tuple[str, ...]) -> None:
    script = f"cat /winner; ls /only-*; echo new > /made; {ROOT_LINE}"
    lines = await output(pod, spec_of(script, overlay(layers, *options)))
    assert lines[:3] == ["top", "/only-low", "/only-top"]
    assert (layers["upper"] / "made").read_text() == "new\n"
    mount, _, super_options = lines[3].partition(" - overlay ")
    attributes = mount.split()[5].split(",")
    assert attributes[0] == "rw" and {"noatime", "nosuid"} & set(options) <= set(attributes)
    assert ("volatile" in super_options) == ("volatile" in options)


async def test_a_view_is_read_only(pod: Pod, layers: dict[str, Path]) -> None:
    for name in ("proc", "dev", "sys"):
        (layers["top"] / name).mkdir()
    script = "cat /winner; touch /x 2>/dev/null || echo refused"
    assert await output(pod, spec_of(script, overlay(layers, upper=False))) == ["top", "refused"]


async def test_a_bound_folder(pod: Pod, tree: Path) -> None:
    assert await output(pod, spec_of("echo new > /made; cat /made", bind(tree))) == ["new"]
    assert (tree / "made").read_text() == "new\n"


async def test_a_bound_folder_is_read_only_from_the_beginning(pod: Pod, tree: Path) -> None:
    lines = await output(
        pod, spec_of("touch /x 2>/dev/null || echo refused", bind(tree, "", "rbind", "ro", "nodev"))
    )
    assert lines == ["refused"]
    (tree / "sys").rmdir()
    with pytest.raises(LaunchError, match=r"mount sysfs on /sys: EROFS"):
        await pod.start("b", spec_of("true", bind(tree, "", "rbind", "ro")))
    assert not (tree / "sys").exists()


async def test_submounts_come_along_where_that_is_asked_for(pod: Pod, tree: Path) -> None:
    """The root itself stays private: what is mounted in it is not seen outside."""
    (tree / "sub").mkdir()
    with mounted(tree / "sub"):
        script = "ls /sub; touch /sub/x 2>/dev/null || echo refused"
        assert (await pod.run("a", spec_of(script, bind(tree, "", "rbind", "rro"))))[1] == ["file", "refused"]
        assert (await pod.run("b", spec_of(script, bind(tree, "", "bind", "rro"))))[1] == ["refused"]


@pytest.mark.kernel("loop_devices")
async def test_a_block_device(pod: Pod, tree: Path, tmp_path: Path) -> None:
    """As devmapper's snapshotter gives it: read-only means the device, too."""
    with block_device(tree, tmp_path / "image") as device:
        root = GivenMount("ext4", device, "", ("discard",))
        assert (await pod.run("a", spec_of("echo new > /made; cat /made", root)))[1] == ["new"]
        root = GivenMount("ext4", device, "", ("ro", "noload"))
        script = f"cat /made; touch /x 2>/dev/null || echo refused; {ROOT_LINE}"
        _, lines = await pod.run("b", spec_of(script, root))
        assert lines[:2] == ["new", "refused"]
        assert f" - ext4 {device} ro" in lines[2]


async def test_nothing_is_mounted_outside_of_the_container(
    pod: Pod, layers: dict[str, Path], tmp_path: Path
) -> None:
    before = mounts_seen(pod, tmp_path)
    root = (overlay(layers, "index=off"), bind(layers["low"], "/data"), GivenMount("tmpfs", "x", "/scratch"))
    started = await pod.start("a", spec_of("exec sleep 1000", *root))
    assert mounts_seen(pod, tmp_path) == before
    assert started.process is not None
    inside = text_of(f"/proc/{started.process.pid}/mountinfo").splitlines()
    assert {"/", "/data", "/scratch"} < {line.split()[4] for line in inside}


async def test_a_hook_works_on_a_given_root(pod: Pod, layers: dict[str, Path], tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    program = tmp_path / "hook"
    program.write_text("#!/bin/sh\ncat > rootfs/data/state\n")
    program.chmod(0o755)
    hook = InjectedHook("createContainer", str(program), (), (), 5)
    root = (overlay(layers), GivenMount("tmpfs", "tmpfs", "/data"))
    spec = spec_of("cat /data/state", *root, hooks=Hooks((hook,), b"told\n", str(bundle)))
    assert await output(pod, spec) == ["told"]
    assert os.listdir(bundle / "rootfs") == []


# ---- in the root


async def test_mounts_are_made_in_their_order(pod: Pod, layers: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "volume/inner").mkdir(parents=True)
    (tmp_path / "file").write_text("a file\n")
    mounts = (
        overlay(layers),
        bind(tmp_path / "volume", "/data", "rbind", "ro"),
        GivenMount("tmpfs", "scratch", "data/inner", ("size=64k", "mode=1777", "noexec")),
        bind(tmp_path / "file", "/data/inner/../inner/file"),
    )
    refused = "touch /data/x 2>/dev/null || echo refused"
    script = f"{refused}; cat /data/inner/file; stat -c %a /data/inner; mount | grep scratch"
    lines = await output(pod, spec_of(script, *mounts))
    assert lines[:3] == ["refused", "a file", "1777"]
    assert "scratch on /data/inner type tmpfs (rw,noexec,relatime,size=64k" in lines[3]
    assert not (layers["upper"] / "data/inner").exists()


async def test_mounts_of_a_spec(pod: Pod, layers: dict[str, Path], tmp_path: Path) -> None:
    mounts = (
        GivenMount("tmpfs", "tmpfs", "/run", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        GivenMount("none", str(tmp_path), "/run/host", ("bind", "ro", "nosuid", "rprivate")),
        GivenMount("proc", "proc", "/run/proc", ("hidepid=2",)),
    )
    refused = "touch host/x 2>/dev/null || echo refused"
    script = f"cd /run; {refused}; ls -d proc/self; grep ' /run' /proc/self/mountinfo"
    lines = await output(pod, spec_of(script, overlay(layers), mounts=mounts))
    assert lines[:2] == ["refused", "proc/self"]
    places = "\n".join(lines[2:])
    assert "/ /run rw,nosuid - tmpfs" in places
    assert "/run/host ro,nosuid" in places
    assert "hidepid=" in places


@pytest.mark.parametrize("place", ["root", "mounts"])
@pytest.mark.parametrize("link", ["/", "../../../../../../..", "{outside}", "/proc/self/root"])
async def test_a_target_that_leads_out_stays_inside(
    pod: Pod, tree: Path, tmp_path: Path, link: str, place: str
) -> None:
    """Whatever links the root has: it is not trusted, as who gives the mounts is."""
    outside, name = tmp_path / "outside", f"phantom-{tmp_path.name}"
    outside.mkdir()
    (tree / "evil").symlink_to(link.format(outside=outside))
    (tmp_path / "file").write_text("mounted\n")
    given = bind(tmp_path / "file", f"/evil/{name}/file")
    root, more = ((bind(tree), given), ()) if place == "root" else ((bind(tree),), (given,))
    made = spec_of(f"cat /evil/{name}/file", *root, mounts=more)
    if link != "/proc/self/root":
        assert await output(pod, made) == ["mounted"]
    elif place == "mounts":  # where proc is mounted by then
        with pytest.raises(LaunchError, match=f"bind {tmp_path}/file on /evil/{name}/file: ELOOP"):
            await pod.start("a", made)
    else:
        await pod.run("a", made)
    assert os.listdir(outside) == []
    assert name not in os.listdir("/")


# ---- what cannot be

BAD: dict[str, tuple[tuple[GivenMount, ...], str]] = {
    "no mounts": ((), r"root\.mounts: must not be empty"),
    "no root": (
        (bind("/x", "/data"),),
        r"root\.mounts\[0\]\.target: '/data': the first mount must be the root",
    ),
    "two roots": ((bind("/x"), bind("/x", "//")), r"root\.mounts\[1\]\.target: '//'"),
    "no type": ((GivenMount("", "/x", ""),), r"root\.mounts\[0\]\.type: '' names no file system"),
    "relative source": ((bind("x"),), r"root\.mounts\[0\]\.source: 'x' is not an absolute path"),
    "shared root": ((bind("/x", "", "rbind", "rshared"),), r"\['rbind', 'rshared'\]: the root is private"),
    "bind with data": (
        (bind("/x", "", "rbind", "size=1k"),),
        r"root\.mounts\[0\]\.options: 'size=1k' is not an option of a bind mount",
    ),
    "sync bind": ((bind("/x", "", "sync"),), r"'sync' is not an option of a bind mount"),
    "unknown of overlay": (
        (bind("/x"), GivenMount("overlay", "", "/o", ("lowerdir=/a", "uidmap=0:1:2"))),
        r"root\.mounts\[1\]\.options: 'uidmap=0:1:2' is not a supported option of overlay",
    ),
    "comma": (
        (GivenMount("overlay", "", "", ("lowerdir=/a", "index=off,ro")),),
        r"'index=off,ro' is not a supp",
    ),
    "no lowerdir": ((GivenMount("overlay", "", "", ()),), r"lowerdir: '' is not an absolute path"),
    "empty lowerdir": (
        (GivenMount("overlay", "", "", ("lowerdir=/a::/b",)),),
        r"options: lowerdir: '' is not an absolute path",
    ),
    "relative lowerdir": (
        (GivenMount("overlay", "", "", ("lowerdir=/a:b",)),),
        r"lowerdir: 'b' is not an abs",
    ),
    "backslash": ((GivenMount("overlay", "", "", (r"lowerdir=/a\:b",)),), r"lowerdir: '/a.*without a backs"),
    "upper without work": (
        (GivenMount("overlay", "", "", ("lowerdir=/a", "upperdir=/u")),),
        r"upperdir='/u' and workdir='': both or neither",
    ),
}


@pytest.mark.parametrize(("mounts", "text"), BAD.values(), ids=BAD.keys())
async def test_mounts_that_are_none(pod: Pod, mounts: tuple[GivenMount, ...], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        await pod.start("a", spec_of("true", *mounts))


REFUSED: dict[str, tuple[GivenMount, str]] = {
    "bind": (bind("/no/such"), r"op \d+, open /no/such with its submounts: ENOENT"),
    "overlay": (
        GivenMount("overlay", "overlay", "", ("index=off", "lowerdir=/no/such:/")),
        r"op \d+, overlay /no/such:/ index=off: ENOENT",
    ),
    "device": (GivenMount("ext4", "/no/such", ""), r"op \d+, new ext4 source=/no/such: ENOENT"),
    "type": (GivenMount("no-such-type", "none", ""), r"op \d+, new no-such-type source=none: ENODEV"),
    "option": (
        GivenMount("tmpfs", "tmpfs", "", ("no_such_option",)),
        r"op \d+, new tmpfs .*: EINVAL .*Unknown parameter 'no_such_option'",
    ),
    "value": (GivenMount("tmpfs", "tmpfs", "", ("size=many",)), r"op \d+, new tmpfs .*size=many: EINVAL"),
}


@pytest.mark.parametrize("where", ["root", "in the root", "mounts"])
@pytest.mark.parametrize(("mount", "text"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_the_kernel_refuses_leaves_no_trace(
    pod: Pod, tree: Path, mount: GivenMount, text: str, where: str
) -> None:
    await pod.fragment.list_processes()  # what came with the request before is closed by now
    fds, pid = sorted(open_fds()), pod.spawned.process.pid
    inside = len(os.listdir(f"/proc/{pid}/fd"))
    beside = GivenMount(mount.type, mount.source, "/data", mount.options)
    made = {
        "root": spec_of("true", mount),
        "in the root": spec_of("true", bind(tree), beside),
        "mounts": spec_of("true", bind(tree), mounts=(beside,)),
    }[where]
    with pytest.raises(PhantomError, match=text):
        await pod.start("a", made)
    assert await pod.fragment.list_processes() == []
    assert sorted(open_fds()) == fds
    assert len(os.listdir(f"/proc/{pid}/fd")) == inside
    assert text_of(f"/proc/{pid}/task/{pid}/children") == ""
