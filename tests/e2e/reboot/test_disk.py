"""A disk that does not take or give back the records: pods run, nothing is silent, and it is made good."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.crictl import Crictl
from harness.daemon import Daemon
from harness.reboot import go_down
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Cri
from tests.e2e.reboot.test_reboot import reboot

pytestmark = pytest.mark.root


def is_durable(daemon: Daemon) -> bool:
    (value,) = re.findall(r"^phantom_records_durable (\S+)$", daemon.metrics(), re.MULTILINE)
    return float(value) == 1.0


def told(daemon: Daemon) -> str:
    info: Any = Crictl(daemon.endpoint, daemon.folder).json("info")
    return str(info["config"]["durableRecords"])


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """A small file system at `folder` with no room left."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        with (folder / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, 1 << 20)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk(make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path) -> None:
    daemon = make_daemon({"pools": [{"name": "default", "size": 1}]})
    with full(daemon.root / "records"):
        cri = Cri(daemon.start().endpoint)
        cri.pull(busybox_image)
        wait_until(lambda: not is_durable(daemon), "the failure to be seen")
        assert "off: database or disk is full" in told(daemon) or "off: disk I/O error" in told(daemon)
        for _ in range(3):
            pod = cri.pod(tmp_path).run_sandbox()
            assert pod.run("echo well").output == "well"
            pod.remove()
        kept = cri.pod(tmp_path).run_sandbox()
        ended = kept.run("exit 9")
        assert daemon.log_text().count("would not survive a reboot") == 1

        (daemon.root / "records/filler").unlink()
        wait_until(lambda: is_durable(daemon), "it to be made good")
        assert told(daemon) == "on"
        assert daemon.log_text().count("records of pods are written to disk again") == 1
        known = ended.status
        go_down(daemon)
        daemon.start()
        cri.wait_served()
        assert (cri.pods(), cri.containers()) == ({kept.id}, {ended.id})
        assert ended.status == known
        assert daemon.stop() == 0
    cri.close()


def test_a_folder_that_cannot_be_written(
    make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path
) -> None:
    daemon = make_daemon({"pools": [{"name": "default", "size": 1}]})
    daemon.root.mkdir(parents=True)
    (daemon.root / "records").write_text("in the way")
    cri = Cri(daemon.start().endpoint)
    cri.pull(busybox_image)
    pod = cri.pod(tmp_path).run_sandbox()
    assert pod.run("echo well").output == "well"
    wait_until(lambda: not is_durable(daemon), "the failure to be seen")
    assert daemon.stop() == 0
    cri.close()


def damage(path: Path, kind: str) -> None:
    if kind == "rubbish":
        path.write_bytes(os.urandom(1 << 16))
    else:
        path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("kind", ["rubbish", "cut"])
def test_a_file_that_cannot_be_read(daemon: Daemon, cri: Cri, tmp_path: Path, kind: str) -> None:
    """Without a reboot nothing is lost, for STATE has all. With one, what is lost is named."""
    pod = cri.pod(tmp_path).run_sandbox()
    ended = pod.run("exit 3")
    known = ended.status
    file, aside = daemon.root / "records/records.db", daemon.root / "records.unreadable/records.db"
    daemon.stop()
    damage(file, kind)
    daemon.start()
    cri.wait_served()
    wait_until(aside.exists, "the file to be set aside")
    assert f"{file} cannot be read and was moved to {aside.parent}" in daemon.log_text()
    wait_until(lambda: is_durable(daemon) and file.exists(), "a new file")
    reboot(daemon, cri)
    assert ended.status == known
    assert pod.status.state == pb.SANDBOX_NOTREADY

    daemon.stop()
    damage(file, kind)
    go_down(daemon)
    daemon.start()
    cri.wait_served()
    assert (cri.pods(), cri.containers()) == (set(), set())
    assert daemon.log_text().count("was moved to") == 2
    assert cri.pod(tmp_path).run_sandbox().run("echo well").output == "well"
    upper = daemon.root / "containers" / ended.id
    wait_until(lambda: not upper.exists(), "what nobody knows any more to go")


def set_schema(path: Path, schema: int) -> None:
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute(f"PRAGMA user_version = {schema}")
    db.close()


def test_a_file_of_a_newer_release(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    """Nothing of it is lost, over a reboot too, until a daemon is back that can read it."""
    pod = cri.pod(tmp_path).run_sandbox()
    ended = pod.run("exit 3")
    known = ended.status
    file = daemon.root / "records/records.db"
    daemon.stop()
    set_schema(file, 99)
    daemon.start()
    cri.wait_served()
    wait_until(lambda: not is_durable(daemon), "it to be seen")
    assert told(daemon) == "off: it has schema 99 of a newer phantom-cri, this one knows 1"
    assert f"{file} is ignored and not changed" in daemon.log_text()
    assert ended.status == known
    assert pod.run("echo well").output == "well"

    go_down(daemon)
    daemon.start()
    cri.wait_served()
    assert (cri.pods(), cri.containers()) == (set(), set())
    fresh = cri.pod(tmp_path).run_sandbox()
    assert fresh.run("echo well").output == "well"

    daemon.stop()
    set_schema(file, 1)
    daemon.start()
    cri.wait_served()
    assert cri.pods() == {pod.id, fresh.id}
    assert ended.status == known
    assert (pod.status.state, fresh.status.state) == (pb.SANDBOX_NOTREADY, pb.SANDBOX_READY)
    assert (daemon.root / "containers" / ended.id / "upper").is_dir()
    wait_until(lambda: is_durable(daemon), "it to be made good")
    assert not (daemon.root / "records.unreadable").exists()
