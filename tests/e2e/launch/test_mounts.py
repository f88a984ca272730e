"""The mounts a container asks for, and images that try to lead them elsewhere."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.waiting import wait_until
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import Mount, Propagation
from phantom_cri.requests.mounts import check_propagation
from tests.e2e.launch.pod import UNLIMITED, Pod, config, mount

pytestmark = pytest.mark.root


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file, and another file system below it."""
    folder = tmp_path / "volume"
    (folder / "below").mkdir(parents=True)
    (folder / "file").write_text("content")
    mounted(folder, "--bind", str(folder))
    mounted(folder / "below", "-t", "tmpfs", "none")
    (folder / "below/inner").write_text("inner")
    yield folder
    subprocess.run(["umount", "-R", str(folder)], check=True)


def mounted(target: Path, *how: str) -> None:
    subprocess.run(["mount", *how, str(target)], check=True)


def mount_points() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


async def test_a_folder_with_what_is_below(pod: Pod, volume: Path) -> None:
    asked = config(
        "cat /v/file /v/below/inner; echo; touch /v/x /v/below/x && echo ok",
        mounts=(mount(str(volume), "/v"),),
    )
    _, lines = await pod.run("a", asked)
    assert lines == ["contentinner", "ok"]
    assert (volume / "x").exists()


async def test_plain_read_only_leaves_what_is_below_writable(pod: Pod, volume: Path) -> None:
    asked = config(
        "touch /v/x; touch /v/below/x && echo ok", mounts=(mount(str(volume), "/v", readonly=True),)
    )
    assert (await pod.run("a", asked))[1] == ["touch: /v/x: Read-only file system", "ok"]


async def test_recursive_read_only(pod: Pod, volume: Path) -> None:
    asked = config(
        "touch /v/x; touch /v/below/x",
        mounts=(mount(str(volume), "/v", readonly=True, recursive_read_only=True),),
    )
    assert (await pod.run("a", asked))[1] == [
        "touch: /v/x: Read-only file system",
        "touch: /v/below/x: Read-only file system",
    ]
    (volume / "below/still writable on the host").touch()


async def test_files_links_and_what_is_missing(pod: Pod, volume: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(volume / "file")
    asked = config(
        "cat /etc/passwd; echo; cat /new/place; echo; stat -c %F /made;touch /dev/termination-log && echo ok",
        mounts=(
            mount(str(volume / "file"), "/etc/passwd"),
            mount(str(tmp_path / "link"), "/new/place"),
            mount(str(tmp_path / "not/there/yet"), "/made"),
            mount(str(volume / "file"), "/dev/termination-log"),
        ),
    )
    assert (await pod.run("a", asked))[1] == ["content", "content", "directory", "ok"]
    assert (tmp_path / "not/there/yet").is_dir()


async def test_a_parent_comes_before_what_lies_in_it(pod: Pod, volume: Path) -> None:
    asked = config(
        "cat /a/file /a/below/deep/file",
        mounts=(mount(str(volume), "/a/below/deep"), mount(str(volume), "/a")),
    )
    exit, lines = await pod.run("a", asked)
    assert (exit.code, lines) == (0, ["contentcontent"]), lines
    assert (volume / "below/deep").is_dir()


async def test_a_mount_on_dev_replaces_all_of_it(pod: Pod, volume: Path) -> None:
    exit, lines = await pod.run("a", config("echo /dev/*", mounts=(mount(str(volume), "/dev"),)))
    assert (exit.code, lines) == (0, ["/dev/below /dev/file"])


async def test_pod_files_yield_to_mounts(pod: Pod, volume: Path, tmp_path: Path) -> None:
    files = []
    for name in ("resolv.conf", "hosts"):
        (tmp_path / name).write_text(f"pod's {name}")
        files.append((f"/etc/{name}", str(tmp_path / name)))
    asked = config(
        "cat /etc/resolv.conf; echo; cat /etc/hosts", mounts=(mount(str(volume / "file"), "/etc/hosts"),)
    )
    _, lines = await pod.run("a", asked, pod_files=tuple(files))
    assert lines == ["pod's resolv.conf", "content"]


# ---- propagation

READY = "echo ready; while ! test -e /v/stop; do sleep 0.01; done; "


async def propagating(pod: Pod, volume: Path, propagation: Propagation, script: str) -> None:
    asked = config(
        READY + script,
        security={"privileged": True},
        mounts=(Mount(container_path="/v", host_path=str(volume), propagation=propagation),),
    )
    check_propagation(asked)
    await pod.start("a", asked, policy=UNLIMITED)
    wait_until(lambda: (pod.folder / "a.log").read_text(), "the container to be ready")


@pytest.mark.parametrize(
    ("propagation", "sees"), [("private", "no"), ("host_to_container", "yes"), ("bidirectional", "yes")]
)
async def test_mounts_of_the_host(pod: Pod, volume: Path, propagation: Propagation, sees: str) -> None:
    mounted(volume, "--make-rshared")
    await propagating(pod, volume, propagation, "test -e /v/later/x && echo yes || echo no")
    (volume / "later").mkdir()
    mounted(volume / "later", "-t", "tmpfs", "none")
    (volume / "later/x").touch()
    (volume / "stop").touch()
    await pod.wait("a")
    assert pod.log("a") == ["ready", sees]


@pytest.mark.parametrize(
    ("propagation", "reaches"), [("private", False), ("host_to_container", False), ("bidirectional", True)]
)
async def test_mounts_of_the_container(
    pod: Pod, volume: Path, propagation: Propagation, reaches: bool
) -> None:
    mounted(volume, "--make-rshared")
    (volume / "mine").mkdir()
    (volume / "stop").touch()
    await propagating(pod, volume, propagation, "mount -t tmpfs none /v/mine && touch /v/mine/x")
    assert (await pod.wait("a")).code == 0
    assert (str(volume / "mine") in mount_points()) == reaches
    assert (volume / "mine/x").exists() == reaches


def test_propagation_needs_a_shared_mount(volume: Path) -> None:
    mounted(volume, "--make-rprivate")
    asked = config(mounts=(mount(str(volume), "/v", propagation="bidirectional"),))
    with pytest.raises(
        InvalidArgument, match=f'path "{volume}" is mounted on "{volume}" but it is not a shared mount'
    ):
        check_propagation(asked)
    subprocess.run(["mount", "--make-rslave", "--make-rshared", str(volume)], check=True)
    check_propagation(asked)


async def test_nothing_of_a_container_is_mounted_on_the_host(pod: Pod, volume: Path) -> None:
    mounted(volume, "--make-rshared")
    before = mount_points()
    asked = config(
        "true",
        mounts=(
            mount(str(volume), "/v"),
            mount(str(volume), "/v/below/again", propagation="host_to_container"),
        ),
    )
    assert (await pod.run("a", asked))[0].code == 0
    assert mount_points() == before


# ---- hostile images


async def test_links_of_the_image_stay_inside(pod: Pod, volume: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    made = pod.request(
        "a",
        config(
            "cat /evil/file; echo; cat /etc/resolv.conf; echo; ls -l /up",
            mounts=(mount(str(volume), "/evil"), mount(str(volume / "file"), "/up/x")),
        ),
        pod_files=(("/etc/resolv.conf", str(volume / "file")),),
    )
    upper = pod.upper("a")
    (upper / "evil").symlink_to(outside)
    (upper / "up").symlink_to("../../../../../.." + str(outside))
    (upper / "etc").mkdir()
    (upper / "etc/resolv.conf").symlink_to("../run/deep/er/resolv.conf")
    _, lines = await pod.run("a", made)
    assert lines[:2] == ["content", "content"], lines
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
async def test_standard_places_that_are_links(pod: Pod, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    made = pod.request("a", config("echo fine"))
    (pod.upper("a") / name).symlink_to(outside)
    _, lines = await pod.run("a", made)
    assert lines == ["fine"]
    assert list(outside.iterdir()) == []
