"""The node's clock is set forward and back by a day while pods run: nothing that is timed goes wrong.

Only the daemon is told the wrong time (libfaketime): the clock of this machine is everybody's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from harness.daemon import Daemon
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, Pod, refusal
from tests.e2e.streaming.client import StreamClient

pytestmark = pytest.mark.root

DAY = 86_400
SECOND = 10**9
JUMPS = ["+1d", "-1d", "+0"]


def preloaded() -> Path:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.fail("libfaketime is not installed: scripts/setup test")
    return found[0]


class Clock:
    """What time the daemon is told: off by what the file says, faketime(1)."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.jump("+0")

    def jump(self, offset: str) -> None:
        """`+1d`: a day ahead of this machine's clock."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{offset}\n")
        fresh.rename(self.file)

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(preloaded()),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "offset")


@pytest.fixture
def daemon(make_daemon: DaemonMaker, clock: Clock) -> Daemon:
    return make_daemon({"pools": [{"name": "default", "size": 2}]}, clock.environment()).start()


@pytest.fixture
def cri(daemon: Daemon, busybox_image: str) -> Iterator[Cri]:
    client = Cri(daemon.endpoint)
    client.pull(busybox_image)
    yield client
    assert "Traceback" not in daemon.log_text()
    client.close()


@pytest.fixture
def pod(cri: Cri, tmp_path: Path) -> Pod:
    return cri.pod(tmp_path).run_sandbox()


def seconds_of(call: object) -> float:
    began = time.monotonic()
    call()  # type: ignore[operator]
    return time.monotonic() - began


def off_by(stamp: int) -> float:
    """Days from now."""
    return (stamp / SECOND - time.time()) / DAY


def test_the_daemon_sees_the_jumps(cri: Cri, clock: Clock, tmp_path: Path) -> None:
    """Without this the other tests would test nothing."""
    for jump, days in (("+1d", 1), ("-1d", -1)):
        clock.jump(jump)
        created = cri.pod(tmp_path).run_sandbox().status.created_at
        assert off_by(created) == pytest.approx(days, abs=0.01)


@pytest.mark.parametrize("jump", JUMPS)
def test_graces_and_timeouts_are_as_long_as_ever(pod: Pod, clock: Clock, jump: str) -> None:
    stubborn = pod.start("trap '' TERM; echo on; while :; do sleep 0.1; done")
    stubborn.wait_output("on")
    clock.jump(jump)
    assert 0.9 < seconds_of(lambda: stubborn.stop(timeout=1)) < 10
    target = pod.start("sleep 1000")

    def late() -> None:
        code, _ = refusal(lambda: target.exec("sleep 100", timeout=1))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED

    assert 0.9 < seconds_of(late) < 10


@pytest.mark.parametrize("jump", ["+1d", "-1d"])
def test_times_in_a_status_stay_in_order(pod: Pod, clock: Clock, jump: str) -> None:
    early, created = pod.start("sleep 1000"), pod.create("true")
    clock.jump(jump)
    created.start()
    ended = created.wait_exited()
    early.stop()
    for status in (ended, early.status):
        assert 0 < status.started_at <= status.finished_at
        assert status.created_at > 0
    pod.stop()
    assert pod.status.created_at > 0


@pytest.mark.parametrize("jump", ["+1d", "-1d"])
def test_urls_are_neither_late_nor_good_for_ever(
    daemon: Daemon, cri: Cri, pod: Pod, clock: Clock, jump: str
) -> None:
    target = pod.start("sleep 1000")
    clock.jump(jump)
    done = StreamClient(daemon.endpoint, "spdy").run("exec", target.id, "echo", "on")
    assert done.stdout == b"on\n", done.stderr


def test_events_stay_in_order(cri: Cri, pod: Pod, clock: Clock) -> None:
    stream = cri.runtime.GetContainerEvents(pb.GetEventsRequest(), timeout=60)
    stream.initial_metadata()
    made: list[str] = []
    for jump in JUMPS:
        clock.jump(jump)
        made.append(pod.run("true").id)
    found: list[pb.ContainerEventResponse] = []
    for event in stream:
        found.append(event)
        if (event.container_id, event.container_event_type) == (made[-1], pb.CONTAINER_STOPPED_EVENT):
            break
    stream.cancel()
    stamps = [event.created_at for event in found]
    assert stamps == sorted(stamps)
    assert len([event for event in found if event.container_event_type == pb.CONTAINER_STOPPED_EVENT]) == 3


def rate(container: Container) -> int:
    request = pb.ContainerStatsRequest(container_id=container.id)
    return int(container.cri.runtime.ContainerStats(request).stats.cpu.usage_nano_cores.value)


@pytest.mark.parametrize("jump", ["+1d", "-1d"])
def test_rates_of_use_come_back_at_once(pod: Pod, clock: Clock, jump: str) -> None:
    busy = pod.start("while :; do :; done")
    wait_until(lambda: rate(busy) > 0, "a rate")
    clock.jump(jump)
    wait_until(lambda: rate(busy) == 0, "the rate to begin anew", interval=0.2)
    wait_until(lambda: 0 < rate(busy) < 3 * SECOND, "a rate of the new time", interval=0.2)


@pytest.mark.parametrize("jump", ["+1d", "-1d"])
def test_pools_are_not_thrown_away_and_images_stay(
    daemon: Daemon, cri: Cri, clock: Clock, tmp_path: Path, jump: str
) -> None:
    daemon.wait_pools_full()
    clock.jump(jump)
    cri.pod(tmp_path).run_sandbox().run("true")
    daemon.wait_pools_full()
    assert "phantom_pool_retired_total{" not in daemon.metrics()
    assert cri.image in {image.id for image in cri.images.ListImages(pb.ListImagesRequest()).images}


def test_a_daemon_that_starts_in_another_time(daemon: Daemon, cri: Cri, pod: Pod, clock: Clock) -> None:
    target = pod.start("sleep 1000")
    for jump in ("-1d", "+1d"):
        clock.jump(jump)
        daemon.restart()
        cri.wait_served()
        assert target.status.state == pb.CONTAINER_RUNNING
        assert target.tell("echo on") == "on"
    target.stop()
    assert target.status.started_at <= target.status.finished_at
