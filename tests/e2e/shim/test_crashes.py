"""kill -9 of the daemon below a containerd that has tasks: none is lost, nor an exit code, nor an event."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.containerd import Containerd
from harness.crictl import Crictl
from harness.ctr import Ctr, CtrError
from harness.daemon import Daemon
from harness.waiting import wait_until
from tests.e2e.shim.conftest import RUNTIMES
from tests.e2e.shim.test_crictl import container_config, pod_config

pytestmark = pytest.mark.root

ROUNDS = 10


@pytest.fixture(autouse=True)
def no_traces(phantom: Daemon, containerd: Containerd) -> Iterator[None]:
    before = phantom.snapshot()
    yield
    if not phantom.running.running():
        phantom.start()
    phantom.wait_for_no_traces(before)


class Waiting:
    """`ctr ARGUMENTS` in the background, until it ends by itself."""

    def __init__(self, ctr: Ctr, *arguments: str) -> None:
        self.output = ""
        self.status: int | None = None
        self._arguments, self._ctr = arguments, ctr
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.output = self._ctr.run(*self._arguments, timeout=60)
            self.status = 0
        except CtrError as error:
            self.output, self.status = error.stdout, error.status
        except subprocess.TimeoutExpired:
            return

    def join(self) -> int | None:
        self._thread.join(70)
        return self.status


def restart_after(phantom: Daemon, meanwhile: Callable[[], object] = lambda: None) -> None:
    phantom.kill()
    meanwhile()
    phantom.start()


def test_a_task_goes_on_and_can_be_used(ctr: Ctr, phantom: Daemon, image: str) -> None:
    ctr.start(image, "on", "sleep", "1000")
    pid, _ = ctr.states()["on"]
    try:
        for _ in range(2):
            restart_after(phantom)
            assert ctr.states()["on"] == (pid, "RUNNING")
            assert ctr.exec("on", f"e{time.monotonic_ns()}", "echo", "fine") == "fine\n"
        ctr.run("tasks", "pause", "on")
        restart_after(phantom)
        assert ctr.states()["on"] == (pid, "PAUSED")
        ctr.run("tasks", "resume", "on")
    finally:
        ctr.remove("on")


@pytest.mark.parametrize("when", ["while it is down", "afterwards"])
def test_who_waits_gets_the_exit_code(
    ctr: Ctr, phantom: Daemon, image: str, when: str, tmp_path: Path
) -> None:
    with ctr.events(tmp_path / "events") as events:
        script = "echo begun; while [ ! -e /go ]; do sleep 0.05; done; echo done; exit 6"
        waiting = Waiting(ctr, "run", "--runtime", RUNTIMES["phantom"], image, "awaited", "sh", "-c", script)
        wait_until(lambda: ctr.states().get("awaited", (0, ""))[1] == "RUNNING", "the task")
        pid = ctr.states()["awaited"][0]
        go = Path(f"/proc/{pid}/root/go")
        try:

            def end() -> None:
                go.touch()
                wait_until(lambda: not _is_alive(pid), "the task to end")

            restart_after(phantom, end if when == "while it is down" else lambda: None)
            if when == "afterwards":
                end()
            assert waiting.join() == 6
            assert waiting.output == "begun\ndone\n"
            wait_until(lambda: "/tasks/exit" in dict(events.of_tasks()), "the exit event")
            exits = [content for topic, content in events.of_tasks() if topic == "/tasks/exit"]
            assert [content["exit_status"] for content in exits] == [6]
        finally:
            ctr.remove("awaited")


def test_an_exec_goes_on(ctr: Ctr, phantom: Daemon, image: str) -> None:
    ctr.start(image, "execed", "sleep", "1000")
    try:
        script = "echo begun; while [ ! -e /go ]; do sleep 0.05; done; echo done; exit 7"
        waiting = Waiting(ctr, "tasks", "exec", "--exec-id", "e", "execed", "sh", "-c", script)
        root = Path(f"/proc/{ctr.states()['execed'][0]}/root")
        time.sleep(1)
        restart_after(phantom)
        (root / "go").touch()
        assert waiting.join() == 7
        assert waiting.output == "begun\ndone\n"
    finally:
        ctr.remove("execed")


def test_a_terminal_goes_on(ctr: Ctr, phantom: Daemon, image: str) -> None:
    def kill_and_answer() -> None:
        wait_until(lambda: ctr.states().get("tty", (0, ""))[1] == "RUNNING", "the task")
        time.sleep(0.5)
        restart_after(phantom)
        Path(f"/proc/{ctr.states()['tty'][0]}/root/go").touch()

    killer = threading.Thread(target=kill_and_answer)
    killer.start()
    script = "echo begun; while [ ! -e /go ]; do sleep 0.05; done; read line; echo got $line"
    shown = ctr.on_terminal(
        *("run", "--rm", "--tty", "--runtime", RUNTIMES["phantom"], image, "tty", "sh", "-c", script),
        typed=b"hello\n",
    )
    killer.join()
    assert b"begun" in shown
    assert b"got hello" in shown


def test_a_stop_and_a_start_in_order_keep_tasks_too(ctr: Ctr, phantom: Daemon, image: str) -> None:
    ctr.start(image, "kept", "sleep", "1000")
    try:
        phantom.restart()
        assert ctr.states()["kept"][1] == "RUNNING"
    finally:
        ctr.remove("kept")


def test_delete_without_a_daemon(ctr: Ctr, phantom: Daemon, image: str) -> None:
    """Its fragment dies too, so that containerd sees an end, and cleans up by the launcher alone."""
    ctr.start(image, "orphan", "sleep", "1000")
    pid = ctr.states()["orphan"][0]
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    phantom.kill()
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: not _is_alive(pid), "the task to end")
    wait_until(lambda: "orphan" not in ctr.states(), "containerd to clean up")
    phantom.start()
    ctr.remove("orphan")


def test_a_pod_of_cri_goes_on(crictl: Crictl, phantom: Daemon, image: str, tmp_path: Path) -> None:
    config = pod_config("crashing", tmp_path)
    pod = crictl.run_pod(config, "phantom")
    try:
        one = crictl.create(pod, container_config(image, "one"), config)
        crictl.run("start", one)
        restart_after(phantom)
        assert crictl.json("inspect", one)["status"]["state"] == "CONTAINER_RUNNING"
        two = crictl.create(pod, container_config(image, "two"), config)
        crictl.run("start", two)
        assert crictl.run("exec", two, "echo", "fine") == "fine\n"
        restart_after(phantom)
        crictl.run("stop", "--timeout", "10", one)
        assert crictl.json("inspect", one)["status"]["exitCode"] == 5
    finally:
        crictl.run("rmp", "--force", pod)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def restart_containerd(containerd: Containerd, meanwhile: Callable[[], object]) -> None:
    assert containerd.child is not None
    containerd.child.kill()
    meanwhile()
    containerd.start()


def test_containerd_dies_and_finds_its_tasks_again(
    ctr: Ctr, containerd: Containerd, phantom: Daemon, image: str
) -> None:
    ctr.start(image, "stays", "sleep", "1000")
    ctr.start(image, "ends", "sleep", "1000")
    stays, ends = ctr.states()["stays"], ctr.states()["ends"]

    def both_die() -> None:
        os.kill(ends[0], signal.SIGKILL)
        restart_after(phantom)

    try:
        restart_containerd(containerd, both_die)
        # containerd forgets, when it starts, what has no process: with runc too.
        wait_until(lambda: ctr.states().get("ends", (0, "gone"))[1] in ("STOPPED", "gone"), "the end")
        assert ctr.states()["stays"] == stays
        assert ctr.exec("stays", "e", "echo", "fine") == "fine\n"
    finally:
        ctr.remove("stays")
        ctr.remove("ends")


def test_nothing_is_lost_under_load(ctr: Ctr, phantom: Daemon, image: str, tmp_path: Path) -> None:
    """Only a pod whose very first request is cut off may be missing, and is told so."""
    stop = threading.Event()
    ended: list[tuple[str, int | None]] = []

    def keep_running(worker: int) -> None:
        for number in range(1000):
            if stop.is_set():
                return
            name, code = f"w{worker}-{number}", 1 + number % 100
            run = Waiting(
                *(ctr, "run", "--rm", "--runtime", RUNTIMES["phantom"], image, name),
                *("sh", "-c", f"sleep 0.3; exit {code}"),
            )
            status = run.join()
            if status != code:
                ended.append((name, status))
            ctr.remove(name)

    ctr.start(image, "steady", "sleep", "1000")
    pid, _ = ctr.states()["steady"]
    workers = [threading.Thread(target=keep_running, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(ROUNDS):
            time.sleep(1)
            restart_after(phantom)
            assert ctr.states()["steady"] == (pid, "RUNNING")
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        ctr.remove("steady")
    # ctr itself exits with 1 for a request that failed.
    assert all(status == 1 for _, status in ended), ended
    assert len(ended) <= ROUNDS
