"""The harness against real programs: a leak check that sees nothing proves nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.child import Child
from harness.host import Snapshot, kill_below, mounts_below, unmount_below
from harness.image import Compression, LayerBuilder, build_image, write_layout
from harness.registry import Registry


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_others_read_our_images(registry: Registry, tmp_path: Path, compression: Compression) -> None:
    digest = build_image(tmp_path / "image", files={"/etc/hello": "hello\n"}, compression=compression)
    reference = registry.push(tmp_path / "image", "checks", compression)
    command = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{reference}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == digest


@pytest.mark.root
def test_the_busybox_of_an_image_runs(tmp_path: Path) -> None:
    build_image(tmp_path / "image", files={"/etc/hello": "hello\n"})
    command = ["umoci", "raw", "unpack", "--image", f"{tmp_path / 'image'}:latest", str(tmp_path / "root")]
    subprocess.run(command, check=True)
    shell = [
        "chroot",
        str(tmp_path / "root"),
        "/bin/sh",
        "-c",
        "cat /etc/hello && id -un 65534 2>&1; ls -l /bin/ls",
    ]
    assert subprocess.run(shell, capture_output=True, text=True, check=True).stdout.startswith("hello\n")
    assert (tmp_path / "root/bin/ls").stat().st_ino == (tmp_path / "root/bin/busybox").stat().st_ino


def test_a_hostile_layer_is_written_as_it_is_said(tmp_path: Path) -> None:
    layer = LayerBuilder().file("../../escape", "x").symlink("up", "../..").finish()
    write_layout(tmp_path / "image", [layer], compression="none")
    blobs = b"".join(path.read_bytes() for path in (tmp_path / "image/blobs/sha256").iterdir())
    assert b"../../escape" in blobs


def test_a_registry_with_a_password_refuses_strangers(tmp_path: Path) -> None:
    # bcrypt of "secret", cost 5
    with Registry(
        tmp_path, htpasswd="user:$2y$05$uIXmZ0AoMVyl4UYI0qXa6eQ4nYDkWgLoXxWvGQAqCIfMR9VCqkbVi\n"
    ) as guarded:
        command = ["skopeo", "inspect", "--tls-verify=false", f"docker://{guarded.host}/any"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "authentication required" in done.stderr or "unauthorized" in done.stderr


def test_a_program_that_dies_early_shows_its_last_words(tmp_path: Path) -> None:
    child = Child(["sh", "-c", "echo no such luck; exit 3"], tmp_path / "log")
    with pytest.raises(RuntimeError, match="ended with 3") as caught:
        child.wait_for_file(tmp_path / "never")
    assert "no such luck" in str(caught.value)


@pytest.mark.root
def test_a_snapshot_sees_what_is_left(short_folder: Path) -> None:
    folder = short_folder / "left"
    folder.mkdir()

    def take() -> Snapshot:
        return Snapshot.take(folder, os.getpid(), "/phantom-no-such-group", "no-such-bridge")

    before = take()
    assert take().differences(before) == ""
    (folder / "mount").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "mount"], check=True)
    holder = Child(["sleep", "1000"], folder / "log")
    try:
        seen = take().differences(before)
    finally:
        kill_below(folder)
        unmount_below(folder)
    assert "mounts: +1 ~/mount" in seen
    assert "processes: +1 sleep" in seen
    assert "network namespaces: +1 namespace" in seen
    assert "files: +1 ~/log" in seen
    assert not holder.running()
    assert mounts_below(folder) == []
