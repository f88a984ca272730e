"""What a container changed, as a layer: hostile names and kinds of files come out right or not at all."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import tarfile
from pathlib import Path
from threading import Event

import pytest

from phantom_cri.errors import ResourceExhausted
from phantom_cri.images.layer_diff import write_layer


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    folder = tmp_path / "upper"
    folder.mkdir()
    return folder


def layer_of(upper: Path, stop: Event | None = None) -> dict[str, tarfile.TarInfo]:
    target = upper.with_name("layer.tar")
    write_layer(str(upper), str(target), stop or Event())
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with tarfile.open(target, errors="surrogateescape") as layer:
        return {entry.name: entry for entry in layer}


def test_files_folders_and_links_keep_what_they_are(upper: Path) -> None:
    (upper / "etc").mkdir(mode=0o750)
    file = upper / "etc/file"
    file.write_bytes(b"content")
    file.chmod(0o4755)
    os.link(file, upper / "etc/same")
    (upper / "etc/link").symlink_to("/etc/shadow")
    os.mkfifo(upper / "pipe", 0o600)
    found = layer_of(upper)
    assert stat.S_IMODE(found["etc"].mode) == 0o750
    assert found["etc/file"].mode == 0o4755
    assert (found["etc/same"].islnk(), found["etc/same"].linkname) == (True, "etc/file")
    assert (found["etc/link"].issym(), found["etc/link"].linkname) == (True, "/etc/shadow")
    assert found["pipe"].isfifo()


def test_a_link_out_of_the_layer_is_never_followed(upper: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (upper / "way").symlink_to(secret)
    assert set(layer_of(upper)) == {"way"}


def test_sockets_and_names_of_whiteouts_are_left_out(upper: Path) -> None:
    (upper / ".wh.passwd").write_text("")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(upper / "socket"))
        (upper / "file").write_text("")
        assert set(layer_of(upper)) == {"file"}


def test_names_that_are_no_text(upper: Path) -> None:
    name = os.fsdecode(b"\xff\xfe\n")
    (upper / name).write_text("x")
    assert set(layer_of(upper)) == {name}


def test_very_deep_trees(upper: Path) -> None:
    here = os.open(upper, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    try:
        assert len(layer_of(upper)) == 3000
    finally:
        subprocess.run(["rm", "-r", upper], check=True)  # shutil's would recurse too deep


def test_a_sparse_file_larger_than_the_disk_is_refused(upper: Path) -> None:
    with (upper / "huge").open("wb") as file:
        file.truncate(1 << 43)
    with pytest.raises(ResourceExhausted, match=r"huge: its \d+ bytes"):
        layer_of(upper)


def test_it_can_be_stopped(upper: Path) -> None:
    (upper / "file").write_text("x")
    stop = Event()
    stop.set()
    with pytest.raises(InterruptedError):
        layer_of(upper, stop)


@pytest.mark.root
def test_what_was_removed_becomes_a_whiteout(upper: Path) -> None:
    (upper / "etc").mkdir()
    os.mknod(upper / "etc/passwd", stat.S_IFCHR, os.makedev(0, 0))
    (upper / "opt").mkdir()
    os.setxattr(upper / "opt", "trusted.overlay.opaque", b"y")
    os.setxattr(upper / "opt", "trusted.secret", b"\xff\x00")
    found = layer_of(upper)
    assert set(found) == {"etc", "etc/.wh.passwd", "opt", "opt/.wh..wh..opq"}
    assert (
        found["opt"].pax_headers["SCHILY.xattr.trusted.secret"].encode(errors="surrogateescape")
        == b"\xff\x00"
    )
