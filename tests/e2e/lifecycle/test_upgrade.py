"""Upgrade and roll-back between this release and an earlier commit's: daemons, fragments, records."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.daemon import Daemon, free_port
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Cri, Pod
from tests.e2e.lifecycle.conftest import StartRelease, warmed_up
from tests.e2e.lifecycle.releases import Release, build_commit, replace, started
from tests.e2e.lifecycle.test_restart import counter, numbered

pytestmark = pytest.mark.root

PINNED = "6325fff47819634bdffd2882ed55f008472d1273"
"""The first commit whose records and protocol say how they grow: upgrades from it and back to it work."""

LATER = {"later": {"deep": [1, {"x": None}]}}


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return build_commit(tmp_path_factory.mktemp("pinned"), PINNED)


@dataclass
class Work:
    """What one release has made, in each state that a container can be in."""

    pod: Pod
    stopped_pod: Pod
    running: Container
    away: Container  # ends while no daemon is there
    created: Container
    ended: Container
    known: list[Any]

    @classmethod
    def begin(cls, cri: Cri, folder: Path) -> Work:
        port = pb.PortMapping(container_port=80, host_port=free_port())
        pod = cri.pod(folder, hostname="kept", labels={"a": "b"}, port_mappings=[port]).run_sandbox()
        stopped_pod = cri.pod(folder).run_sandbox()
        stopped_pod.start("sleep 1000")
        stopped_pod.stop()
        running, away = pod.start(counter(100_000)), started(pod, folder / "away", 6)
        created, ended = pod.create("echo late; exit 3"), pod.run("echo over; exit 4")
        assert running.tell("echo inside > /mark; cat /mark") == "inside"
        work = cls(pod, stopped_pod, running, away, created, ended, [])
        work.known = work.seen()
        return work

    def seen(self) -> list[Any]:
        containers = (self.running, self.created, self.ended)
        return [*(one.status for one in containers), self.pod.status, self.stopped_pod.status]

    def end_away(self, daemon: Daemon, folder: Path) -> None:
        (folder / "away" / "go").touch()
        exits = daemon.state / "pods" / self.pod.id / "exits"
        wait_until((exits / self.away.id).exists, "an exit record")

    def check_and_use(self) -> None:
        """All is as it was, and everything can be done with it."""
        assert self.seen() == self.known
        assert self.away.wait_exited().exit_code == 6
        lines = len(numbered(self.running))
        wait_until(lambda: len(numbered(self.running)) > lines, "more lines")
        assert self.running.tell("cat /mark; hostname") == "inside\nkept"
        assert self.ended.output == "over"
        self.created.start()
        assert self.created.wait_exited().exit_code == 3
        assert self.created.output == "late"
        assert self.pod.run("echo new").output == "new"
        self.running.stop()
        assert self.running.status.exit_code == 137
        self.ended.remove()
        self.stopped_pod.remove()


def records(daemon: Daemon) -> list[Path]:
    """All but policies, which are read strictly, and the fragments' own."""
    folders = [daemon.state / "pods", daemon.state / "network" / "pods"]
    folders += [daemon.root / "images", daemon.root / "layers"]
    return [path for folder in folders for path in folder.rglob("*.json") if "containers" not in path.name]


def add_later_fields(daemon: Daemon) -> None:
    """As a release after this one may have written them."""
    for path in records(daemon):
        document = json.loads(path.read_bytes())
        for part in (document, document.get("config", {})):
            part.update(LATER)
        path.write_text(json.dumps(document))


def check_later_fields(daemon: Daemon, pod: Pod) -> None:
    """What the daemon has changed since, or read only, has them still."""
    pods = daemon.state / "pods"
    network = daemon.state / "network" / "pods" / f"{pod.id}.json"
    for path in [*(pods / pod.id).rglob("*.json"), network, *(daemon.root / "images").iterdir()]:
        document = json.loads(path.read_bytes())
        assert document.get("later") == LATER["later"], path
        if "config" in document:
            assert document["config"].get("later") == LATER["later"], path


def test_pods_outlive_upgrades_and_roll_backs(
    start_release: StartRelease, pinned: Release, tmp_path: Path
) -> None:
    daemon, cri = start_release({})  # the last one too, so that their traces compare
    before = warmed_up(daemon, cri)
    replace(daemon, cri, pinned)
    kept = cri.pod(tmp_path / "kept").run_sandbox()
    always = kept.start(counter(100_000))
    images = list(cri.images.ListImages(pb.ListImagesRequest()).images)
    ended = cri.pod(tmp_path / "ended").run_sandbox()
    stopping = ended.start("sleep 1000")
    work = Work.begin(cri, tmp_path / "0")
    for step, release in enumerate((None, pinned, None), start=1):
        daemon.kill()
        work.end_away(daemon, tmp_path / str(step - 1))
        add_later_fields(daemon)
        daemon.environment = dict(release or {})
        daemon.start()
        cri.wait_served()
        if step == 2:
            stopping.stop()  # a change of a record
        check_later_fields(daemon, ended)
        work.check_and_use()
        assert list(cri.images.ListImages(pb.ListImagesRequest()).images) == images
        assert always.status.state == pb.CONTAINER_RUNNING
        work.pod.remove()
        work = Work.begin(cri, tmp_path / str(step))
    assert stopping.status.exit_code == 137
    numbered(always)
    cri.remove_pods()
    daemon.wait_for_no_traces(before)
