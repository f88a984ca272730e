"""Upgrade and roll-back: this daemon with fragments of earlier and later releases, and of other versions."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import refusal
from tests.e2e.lifecycle.conftest import StartRelease, warmed_up
from tests.e2e.lifecycle.releases import (
    LATER_FIELDS,
    Release,
    build_release,
    replace,
    speaking,
    started,
    without_op,
)
from tests.e2e.lifecycle.test_restart import alive, fragment_of

pytestmark = pytest.mark.root

BOTH = "the fragment speaks protocol versions 7 to 9, this daemon version 1"


@pytest.fixture(scope="module")
def other_version(tmp_path_factory: pytest.TempPathFactory) -> Release:
    bits = {"plans/constants.py": {r"(VERSION_OLDEST) = 1": r"\1 = 7", r"(VERSION_NEWEST) = 1": r"\1 = 9"}}
    return build_release(tmp_path_factory.mktemp("other"), speaking(7, 9), bits)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return build_release(tmp_path_factory.mktemp("later"), LATER_FIELDS)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return build_release(tmp_path_factory.mktemp("earlier"), without_op("NO_NEW_PRIVS"))


def refused(act: Callable[[], Any]) -> str:
    """The words of a FAILED_PRECONDITION."""
    code, words = refusal(act)
    assert code is grpc.StatusCode.FAILED_PRECONDITION, words
    return words


def test_a_fragment_of_another_version_is_left_alone(
    start_release: StartRelease, other_version: Release, tmp_path: Path
) -> None:
    daemon, cri = start_release(other_version)
    before = warmed_up(daemon, cri)
    pod = cri.pod(tmp_path).run_sandbox()
    running, away = started(pod, tmp_path / "one", 5), started(pod, tmp_path / "two", 6)
    created, ended = pod.create("true"), pod.run("exit 4")
    fragment = fragment_of(daemon, pod)
    daemon.kill()
    (tmp_path / "two" / "go").touch()
    wait_until(lambda: (daemon.state / "pods" / pod.id / "exits" / away.id).exists(), "an exit record")
    replace(daemon, cri)

    assert (
        f"pod sandbox {pod.id} keeps running but can only be stopped and removed: {BOTH}" in daemon.log_text()
    )
    assert pod.status.state == pb.SANDBOX_READY
    assert running.status.state == pb.CONTAINER_RUNNING
    assert created.status.state == pb.CONTAINER_CREATED
    assert (ended.status.exit_code, away.status.exit_code) == (4, 6)
    for verb in (
        lambda: pod.create("true"),
        created.start,
        created.remove,
        lambda: running.exec("true"),
        running.stop,
        running.remove,
    ):
        assert BOTH in refused(verb)
    assert created.status.state == pb.CONTAINER_CREATED
    (tmp_path / "one" / "go").touch()
    assert running.wait_exited().exit_code == 5
    assert alive(fragment), "it does not die of its version"

    new = cri.pod(tmp_path / "new").run_sandbox()
    assert new.run("echo hello").output == "hello"

    replace(daemon, cri, other_version)  # rolled back: whose fragment speaks another version now
    assert pod.run("echo again").output == "again"
    assert "the fragment speaks protocol version 1, this daemon versions 7 to 9" in refused(
        lambda: new.create("true")
    )
    replace(daemon, cri)
    cri.remove_pods()
    assert not alive(fragment)
    daemon.wait_for_no_traces(before)


def test_the_death_of_a_fragment_of_another_version_is_seen(
    start_release: StartRelease, other_version: Release, tmp_path: Path
) -> None:
    daemon, cri = start_release(other_version)
    pod = cri.pod(tmp_path).run_sandbox()
    container = pod.start("sleep 1000")
    replace(daemon, cri)
    os.kill(fragment_of(daemon, pod), signal.SIGKILL)
    wait_until(lambda: pod.status.state == pb.SANDBOX_NOTREADY, "the pod to be seen as dead")
    assert container.wait_exited().exit_code == 137
    pod.stop()
    pod.remove()


def test_pods_of_a_later_release_go_on_after_a_roll_back(
    start_release: StartRelease, later: Release, tmp_path: Path
) -> None:
    """Longer messages, one more op, one more version: nothing of it matters."""
    daemon, cri = start_release(later)
    before = warmed_up(daemon, cri)
    pod = cri.pod(tmp_path).run_sandbox()
    running, created = started(pod, tmp_path / "sign", 5), pod.create("echo late")
    replace(daemon, cri)
    assert running.tell("echo inside") == "inside"
    created.start()
    assert created.wait_exited().exit_code == 0
    assert created.output == "late"
    (tmp_path / "sign" / "go").touch()
    assert running.wait_exited().exit_code == 5
    assert pod.run("exit 3").status.exit_code == 3
    cri.remove_pods()
    daemon.wait_for_no_traces(before)


def test_an_earlier_fragment_gets_no_op_that_it_does_not_know(
    start_release: StartRelease, earlier: Release, tmp_path: Path
) -> None:
    daemon, cri = start_release(earlier)
    before = warmed_up(daemon, cri)
    pod = cri.pod(tmp_path).run_sandbox()
    running = pod.start("sleep 1000")
    replace(daemon, cri)
    assert running.tell("echo inside") == "inside"
    assert pod.run("exit 3").status.exit_code == 3
    needing = pod.create(
        "true",
        linux=pb.LinuxContainerConfig(security_context=pb.LinuxContainerSecurityContext(no_new_privs=True)),
    )
    words = refused(needing.start)
    assert "set no_new_privs (NoNewPrivs, number 40): not known to the pod's fragment" in words
    assert "protocol version 1" in words
    assert running.tell("echo still") == "still"
    cri.remove_pods()
    daemon.wait_for_no_traces(before)
