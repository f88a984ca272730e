"""Pods with records of a newer schema, as after a roll-back: they run on, their records stay as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.daemon import Daemon
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Pod, refusal
from tests.e2e.lifecycle.conftest import StartRelease, warmed_up
from tests.e2e.lifecycle.releases import replace, started
from tests.e2e.lifecycle.test_restart import alive, fragment_of

pytestmark = pytest.mark.root

STRANGE = {"of": ["another", "kind"]}
NEWER = {  # what a newer schema may have made of fields that no daemon's start needs
    "pod.json": {"schema": 2, "cgroup_parent": STRANGE, "hostname": STRANGE, "later": 1},
    "containers": {"schema": 2, "stop_signal": STRANGE, "user": STRANGE, "later": 1},
}


def records(daemon: Daemon, pod: Pod, kind: str) -> list[Path]:
    return [path for path in (daemon.state / "pods" / pod.id).rglob("*.json") if kind in str(path)]


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


@pytest.mark.parametrize("kind", list(NEWER))
def test_a_pod_with_a_newer_record_is_left_alone(
    start_release: StartRelease, tmp_path: Path, kind: str
) -> None:
    daemon, cri = start_release({})
    before = warmed_up(daemon, cri)
    pod = cri.pod(tmp_path).run_sandbox()
    running, away = started(pod, tmp_path / "one", 5), started(pod, tmp_path / "two", 6)
    created, ended = pod.create("echo late"), pod.run("exit 4")
    fragment = fragment_of(daemon, pod)
    daemon.kill()
    (tmp_path / "two" / "go").touch()
    wait_until(lambda: (daemon.state / "pods" / pod.id / "exits" / away.id).exists(), "an exit record")
    paths = records(daemon, pod, kind)
    was = {path: read(path) for path in paths}
    for path in paths:
        path.write_text(json.dumps(was[path] | NEWER[kind]))
    left = {path: path.read_bytes() for path in paths}
    replace(daemon, cri)

    why = "it has schema 2 of a newer phantom-cri, this one knows 1"
    assert why in daemon.log_text()
    info = cri.runtime.Status(pb.StatusRequest(verbose=True)).info
    assert why in json.loads(info["config"])["podsOfOtherReleases"][pod.id]
    assert pod.status.state == pb.SANDBOX_READY
    assert [one.status.state for one in (running, created)] == [pb.CONTAINER_RUNNING, pb.CONTAINER_CREATED]
    assert (ended.status.exit_code, away.status.exit_code) == (4, 6)
    for verb in (
        lambda: pod.create("true"),
        created.start,
        running.stop,
        running.remove,
        lambda: running.exec("true"),
        lambda: cri.runtime.UpdateContainerResources(
            pb.UpdateContainerResourcesRequest(container_id=running.id)
        ),
    ):
        code, words = refusal(verb)
        assert code is grpc.StatusCode.FAILED_PRECONDITION and why in words
    assert refusal(lambda: Pod(cri, pod.config).run_sandbox())[0] is grpc.StatusCode.ALREADY_EXISTS
    assert cri.pod(tmp_path / "new").run_sandbox().run("echo hello").output == "hello"
    assert {path: path.read_bytes() for path in paths if away.id not in str(path)} == {
        path: content for path, content in left.items() if away.id not in str(path)
    }

    (tmp_path / "one" / "go").touch()
    assert running.wait_exited().exit_code == 5
    assert alive(fragment)
    for path in paths:
        assert read(path).items() >= NEWER[kind].items()
    daemon.kill()
    for path in paths:  # the release that wrote them is back
        path.write_text(json.dumps(read(path) | {name: was[path].get(name) for name in NEWER[kind]}))
        path.write_text(json.dumps({name: value for name, value in read(path).items() if value is not None}))
    daemon.start()
    cri.wait_served()
    assert (running.status.exit_code, away.status.exit_code) == (5, 6)
    created.start()
    assert created.wait_exited().exit_code == 0
    cri.remove_pods()
    daemon.wait_for_no_traces(before)


@pytest.mark.parametrize("kind", list(NEWER))
def test_it_can_be_stopped_and_removed(start_release: StartRelease, tmp_path: Path, kind: str) -> None:
    daemon, cri = start_release({})
    before = warmed_up(daemon, cri)
    pod = cri.pod(tmp_path).run_sandbox()
    running = pod.start("sleep 1000")
    pod.create("true")
    fragment = fragment_of(daemon, pod)
    daemon.kill()
    for path in records(daemon, pod, kind):
        path.write_text(json.dumps(read(path) | NEWER[kind]))
    replace(daemon, cri)
    pod.stop()
    assert not alive(fragment)
    assert running.wait_exited().exit_code == 137
    replace(daemon, cri)
    assert pod.status.state == pb.SANDBOX_NOTREADY
    running.remove()
    pod.remove()
    daemon.wait_for_no_traces(before)
