"""The container's root: hostile images, mounts of every kind, and the three ways to an overlay."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.native import raw
from tests.e2e.native.bed import FIRST_SLOT, ROOT_SLOT, Bed, Mounts, bound, mounts_of, start
from tests.e2e.native.raw import Fragment, Op, Refused, eventually

pytestmark = pytest.mark.root

PRIVATE, SLAVE, SHARED = 1 << 18, 1 << 19, 1 << 20


@pytest.fixture
def image(bed: Bed) -> Path:
    """The root directory, to be spoiled."""
    return bed.rootfs


@pytest.fixture
def host_folder(scratch: Path) -> Iterator[Path]:
    """A mounted tmpfs on the host, with submount `inner`."""
    folder = scratch / "volume"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    (folder / "file").write_text("outer\n")
    (folder / "inner").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder / "inner")], check=True)
    (folder / "inner/file").write_text("inner\n")
    yield folder
    subprocess.run(["umount", "-R", "-l", str(folder)], check=True)


ESCAPES = {
    "absolute link": [("etc", "/")],
    "dot dot link": [("etc", "../../../../../..")],
    "absolute dot dot link": [("etc", "/../../")],
    "two links": [("etc", "a"), ("a", "/../..")],
    "link through proc": [("etc", "/proc/self/root")],
    "link through a cwd": [("etc", "/proc/1/cwd")],
    "dangling link": [("etc", "/made/../../by/image")],
    "dangling relative link": [("etc", "made/../by/image")],
}


@pytest.mark.parametrize("links", ESCAPES.values(), ids=ESCAPES.keys())
def test_targets_stay_inside(bed: Bed, fragment: Fragment, image: Path, links: list[tuple[str, str]]) -> None:
    """A mount target, a directory, a device and a link below a hostile /etc never land on the host."""
    name = f"phantom-escape-{os.getpid()}"
    for link, target in links:
        (image / link).symlink_to(target)
    source = bed.scratch / "source"
    source.write_text("mounted\n")
    here = bound(source, f"/etc/{name}/file")
    plan = bed.container(
        ["/bin/cat", f"/etc/{name}/file"],
        gather=here["gather"],
        before_pivot=[
            ("MKDIR", f"/etc/{name}", 0o755, 0, 0),
            *here["before_pivot"],
            ("MKNOD", f"/etc/{name}/node", 0o010600, 0, 0, 0, 0),
            ("SYMLINK", "x", f"/etc/{name}/link"),
            ("READONLY", f"/etc/{name}"),
        ],
    )
    try:
        assert bed.run(fragment, plan).exit.code == 0
        assert bed.output() == "mounted\n"
    except Refused as refused:
        assert refused.error in (errno.ELOOP, errno.EXDEV), refused  # magic links of proc
    for folder in ("/", "/made", "/by", str(bed.scratch), str(image.parent)):
        assert not os.path.lexists(f"{folder}/{name}")
    assert not os.path.lexists("/by/image") and not os.path.lexists("/made")


def test_a_link_loop_is_refused(bed: Bed, fragment: Fragment, image: Path) -> None:
    (image / "a").symlink_to("b")
    (image / "b").symlink_to("a")
    with pytest.raises(Refused) as refused:
        start(fragment, "c", bed.container(["/bin/true"], before_pivot=[("MKDIR", "/a/x", 0o755, 0, 0)]))
    assert refused.value.error == errno.ELOOP


def test_a_dangling_link_as_target_is_made_inside(bed: Bed, fragment: Fragment, image: Path) -> None:
    (image / "resolv.conf").symlink_to("/run/deep/resolv.conf")
    source = bed.scratch / "source"
    source.write_text("nameserver\n")
    plan = bed.container(["/bin/cat", "/resolv.conf"], **bound(source, "/resolv.conf"))
    assert bed.run(fragment, plan).exit.code == 0
    assert bed.output() == "nameserver\n"
    assert (image / "run/deep/resolv.conf").is_file()


def test_the_root_is_all_there_is(bed: Bed, fragment: Fragment) -> None:
    pid = start(fragment, "c", bed.container(["/bin/sleep", "1000"]))
    assert mounts_of(pid) == ["/", "/proc", "/dev"]


def test_mask(bed: Bed) -> None:
    masks: list[Op] = [
        ("MASK", path) for path in ("/proc/kcore", "/proc/sys", "/bin/id", "/lib/nothing", "/bin/id/x")
    ]
    script = "wc -c < /bin/id; cat /bin/id | wc -c; ls /proc/sys | wc -l; echo x > /proc/sys/x"
    out = bed.run_shell(script + "; true", before_pivot=masks)
    assert out.split() == ["0", "0", "0"]
    assert any("Read-only" in text for stream, _, text in bed.log_lines() if stream == "stderr")


def test_a_mask_does_not_hand_out_the_hosts_null(bed: Bed) -> None:
    before = os.stat("/dev/null")
    script = "chmod 0640 /bin/id || chown 1:1 /bin/id || echo refused; echo lost > /bin/id; cat /bin/id"
    assert bed.run_shell(script, before_pivot=[("MASK", "/bin/id")]) == "refused\n"
    after = os.stat("/dev/null")
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_mask_of_a_directory(bed: Bed, fragment: Fragment, image: Path) -> None:
    (image / "secret").mkdir()
    (image / "secret/key").write_text("key")
    out = bed.run_shell("ls -a /secret; touch /secret/x || echo refused", before_pivot=[("MASK", "/secret")])
    assert out == ".\n..\nrefused\n"


def test_readonly(bed: Bed, image: Path) -> None:
    (image / "data").mkdir()
    ops: list[Op] = [("READONLY", "/proc/sys"), ("READONLY", "/data"), ("READONLY", "/nothing/here")]
    out = bed.run_shell(
        "touch /x && echo root; touch /data/x || echo data; hostname; "
        "echo y > /proc/sys/kernel/hostname || echo sys",
        before_pivot=ops,
    )
    assert "root\n" in out and "data\n" in out and "sys\n" in out


def test_remount_of_the_root(bed: Bed, image: Path) -> None:
    out = bed.run_shell(
        "touch /x || echo root; touch /dev/x && echo dev", before_pivot=[("REMOUNT", "/", raw.RDONLY, 0)]
    )
    assert out == "root\ndev\n"
    out = bed.run_shell(
        "touch /x || echo root; touch /dev/x || echo dev", before_pivot=[("REMOUNT", "/", raw.RDONLY, 1)]
    )
    assert out == "root\ndev\n"


def volume(folder: Path, open_flags: int, attributes: int, propagation: int, flags: int) -> Mounts:
    return {
        "gather": [("OPEN_TREE", FIRST_SLOT, str(folder), open_flags)],
        "before_pivot": [("ATTACH", FIRST_SLOT, "/vol", attributes, propagation, flags | raw.ATTACH_CREATE)],
    }


def test_recursive_and_plain_binds(bed: Bed, host_folder: Path) -> None:
    script = "cat /vol/file; cat /vol/inner/file; true"
    assert bed.run_shell(script, **volume(host_folder, 0, 0, 0, 0)) == "outer\n"
    assert bed.run_shell(script, **volume(host_folder, raw.OPEN_RECURSIVE, 0, 0, 0)) == "outer\ninner\n"


def test_readonly_volumes(bed: Bed, host_folder: Path) -> None:
    script = "touch /vol/x || echo outer; touch /vol/inner/x || echo inner"
    plain = volume(host_folder, raw.OPEN_RECURSIVE, raw.RDONLY, 0, 0)
    assert bed.run_shell(script, **plain) == "outer\n"
    (host_folder / "inner/x").unlink()
    recursive = volume(host_folder, raw.OPEN_RECURSIVE, raw.RDONLY, 0, raw.ATTACH_RECURSIVE)
    assert bed.run_shell(script, **recursive) == "outer\ninner\n"
    (host_folder / "y").write_text("the host may")


@pytest.mark.parametrize(("flags", "refused"), [(0, "outer\n"), (raw.ATTRIBUTES_RECURSIVE, "outer\ninner\n")])
def test_attributes_before_a_tree_is_attached(bed: Bed, host_folder: Path, flags: int, refused: str) -> None:
    mounts = volume(host_folder, raw.OPEN_RECURSIVE, 0, 0, 0)
    gather = [*mounts["gather"], ("ATTRIBUTES", FIRST_SLOT, raw.RDONLY, flags)]
    script = "touch /vol/x || echo outer; touch /vol/inner/x || echo inner"
    assert bed.run_shell(script, gather=gather, before_pivot=mounts["before_pivot"]) == refused
    (host_folder / "y").write_text("the host may")


@pytest.mark.parametrize(
    ("propagation", "comes", "goes"), [(0, 0, 0), (PRIVATE, 0, 0), (SLAVE, 1, 0), (SHARED, 1, 1)]
)
def test_propagation(
    bed: Bed, fragment: Fragment, host_folder: Path, propagation: int, comes: int, goes: int
) -> None:
    subprocess.run(["mount", "--make-rshared", str(host_folder)], check=True)
    (host_folder / "late").mkdir()
    (host_folder / "out").mkdir()
    script = "mount -t tmpfs tmpfs /vol/out && echo mounted; read x < /dev/gate"
    pid = start(
        fragment, "c", bed.shell(script, **volume(host_folder, raw.OPEN_RECURSIVE, 0, propagation, 0))
    )
    eventually(lambda: bed.log_path.stat().st_size > 0)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(host_folder / "late")], check=True)
    assert ("/vol/late" in mounts_of(pid)) == bool(comes)
    assert (str(host_folder / "out") in mounts_of(os.getpid())) == bool(goes)


def test_created_sources(bed: Bed, scratch: Path) -> None:
    missing = scratch / "missing"
    bed.run_shell("touch /vol/made", **volume(missing / "deep", raw.OPEN_CREATE, 0, 0, 0))
    assert (missing / "deep/made").exists()


def test_mkdir_and_mknod(bed: Bed, image: Path) -> None:
    ops: list[Op] = [
        ("MKDIR", "/run/a/b", 0o1777, 5, 6),
        ("MKDIR", "/run/a/b", 0o700, 0, 0),
        ("MKNOD", "/dev/full", 0o020640, 1, 7, 5, 6),
    ]
    out = bed.run_shell(
        "stat -c '%a %u %g' /run/a /run/a/b; stat -c '%a %u %g %t %T' /dev/full", before_pivot=ops
    )
    assert out == "755 0 0\n1777 5 6\n640 5 6 1 7\n"


def test_the_pods_shm_is_shared(bed: Bed, fragment: Fragment) -> None:
    ops: list[Op] = [("OPEN_TREE", 111, "/shm", 0)]
    attach: list[Op] = [("ATTACH", 111, "/dev/shm", 0, 0, raw.ATTACH_CREATE)]
    for script in ("echo hello > /dev/shm/x", "cat /dev/shm/x; mount"):
        plan = bed.shell(script, before_pivot=attach)
        names = [op[0] for op in plan.ops]
        plan.ops[names.index("ROOT") : names.index("ROOT")] = ops
        assert bed.run(fragment, plan).exit.code == 0
    assert bed.output().startswith("hello\n")
    assert "nosuid,nodev,noexec" in bed.output() and "size=65536k" in bed.output()


# ---- overlay ----

WAYS = [
    0,
    raw.OVERLAY_VOLATILE,
    raw.OVERLAY_JOINED,
    raw.OVERLAY_CLASSIC,
    raw.OVERLAY_CLASSIC | raw.OVERLAY_VOLATILE,
]


def overlay(bed: Bed, count: int, name: str, flags: int, *, upper: bool = True) -> Op:
    """An overlay of `count` layers over busybox; each has a file of its own and one that the top one wins."""
    layers = []
    for number in range(count):
        layer = bed.scratch / name / f"{number:03}"
        layer.mkdir(parents=True)
        (layer / f"only-{number}").write_text(f"{number}\n")
        (layer / "winner").write_text(f"{number}\n")
        layers.append(str(layer))
    folders = [bed.scratch / name / folder for folder in ("upper", "work")]
    for folder in folders:
        folder.mkdir()
    lower = [*layers, str(bed.rootfs)]
    return ("OVERLAY", ROOT_SLOT, lower, *(map(str, folders) if upper else ("", "")), flags)


@pytest.mark.parametrize("flags", WAYS)
@pytest.mark.parametrize("name", ["plain", "with:colon", "with,comma"])
def test_overlay(bed: Bed, flags: int, name: str) -> None:
    out = bed.run_shell(
        "cat winner only-1; echo new > /new; ls /proc | head -n 1", root=overlay(bed, 3, name, flags)
    )
    assert out == "0\n1\n1\n"
    assert (bed.scratch / name / "upper/new").read_text() == "new\n"


@pytest.mark.parametrize("flags", WAYS)
def test_overlay_of_many_layers(bed: Bed, flags: int) -> None:
    out = bed.run_shell("cat winner only-99; ls /only-* | wc -l", root=overlay(bed, 100, "many", flags))
    assert out == "0\n99\n100\n"


@pytest.mark.parametrize("flags", WAYS)
def test_overlay_without_upper_is_read_only(bed: Bed, flags: int) -> None:
    bed_root = overlay(bed, 1, "ro", flags, upper=False)
    # The mount points of the plan have to be there: nothing can be made in it.
    for folder in ("proc", "dev"):
        (bed.scratch / "ro/000" / folder).mkdir()
    assert bed.run_shell("cat winner; touch /x || echo refused", root=bed_root) == "0\nrefused\n"


def test_a_single_layer_is_bound_read_only(bed: Bed, image: Path) -> None:
    for folder in ("proc", "dev"):
        (image / folder).mkdir(exist_ok=True)
    root: Op = ("OVERLAY", ROOT_SLOT, [str(image)], "", "", 0)
    assert bed.run_shell("touch /x || echo refused", root=root) == "refused\n"


def test_overlay_leaves_no_mount(bed: Bed, fragment: Fragment) -> None:
    before = mounts_of(os.getpid())
    for number, flags in enumerate(WAYS):
        bed.run(
            fragment, bed.container(["/bin/true"], root=overlay(bed, 2, f"o{number}", flags)), f"c{number}"
        )
    assert mounts_of(os.getpid()) == before
    assert sorted(mounts_of(fragment.pid)) == ["/", "/empty", "/null", "/proc", "/shm"]


@pytest.mark.parametrize("flags", WAYS)
def test_overlay_says_why(bed: Bed, fragment: Fragment, flags: int) -> None:
    root: Op = ("OVERLAY", ROOT_SLOT, [str(bed.rootfs), "/no/such/layer"], "", "", flags)
    with pytest.raises(Refused) as refused:
        start(fragment, "c", bed.container(["/bin/true"], root=root))
    assert (refused.value.error, refused.value.op) == (errno.ENOENT, 1)
    assert "overlay" in refused.value.message.text


OWN_OPTIONS = ["index=off", "metacopy=off"]


def overlay_with(plain: Op, options: list[str]) -> Op:
    _, *fields, flags = plain
    return ("OVERLAY_WITH", *fields, options, flags)


@pytest.mark.parametrize("flags", WAYS)
def test_overlay_with_options_of_its_own(bed: Bed, flags: int) -> None:
    """As the kernel shows them: those that differ from its defaults."""
    root = overlay_with(overlay(bed, 3, "with,comma", flags), [*OWN_OPTIONS, "redirect_dir=nofollow"])
    out = bed.run_shell("cat winner; mount | head -n 1", root=root)
    assert out.startswith("0\n") and " on / type overlay (rw" in out
    assert "redirect_dir=nofollow" in out


@pytest.mark.parametrize("flags", WAYS)
@pytest.mark.parametrize("option", ["index=maybe", "no_such_option", "index=off,volatile", "x" * 64])
def test_overlay_options_that_are_none(bed: Bed, fragment: Fragment, flags: int, option: str) -> None:
    before = mounts_of(fragment.pid)
    root = overlay_with(overlay(bed, 2, "o", flags), [option])
    with pytest.raises(Refused) as refused:
        start(fragment, "c", bed.container(["/bin/true"], root=root))
    assert (refused.value.error, refused.value.op) == (errno.EINVAL, 1)
    assert mounts_of(fragment.pid) == before
    assert str(bed.scratch) not in Path("/proc/self/mountinfo").read_text()
