"""`ctr` on a real containerd whose tasks are ours: what cannot be is said, and the rest is as with runc."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness.cgroups import groups_below
from harness.containerd import Containerd
from harness.ctr import Ctr, CtrError
from harness.daemon import Daemon
from harness.waiting import wait_until
from tests.e2e.shim.conftest import NAMESPACE, RUNTIMES

pytestmark = pytest.mark.root


def test_a_program_that_is_not_there(ctr: Ctr, image: str, phantom: Daemon) -> None:
    before = phantom.snapshot()
    with pytest.raises(CtrError, match="nothing-like-it"):
        ctr.run_task(image, "absent", "/nothing-like-it")
    assert ctr.states() == {}
    ctr.remove("absent")
    phantom.wait_for_no_traces(before)
    assert not list(groups_below(f"/{NAMESPACE}/absent"))


def test_what_a_spec_asks_and_cannot_have_is_refused_by_name(ctr: Ctr, image: str, phantom: Daemon) -> None:
    before = phantom.snapshot()
    with pytest.raises(CtrError, match=r"linux\.uidMappings: not supported by this runtime"):
        ctr.start(image, "userns", flags=("--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000"))
    ctr.remove("userns")
    phantom.wait_for_no_traces(before)


def test_verbs_on_what_is_not_there(ctr: Ctr) -> None:
    for verb in ("start", "pause", "resume", "kill", "delete", "metrics", "ps"):
        with pytest.raises(CtrError, match=r"not found|no running task"):
            ctr.run("tasks", verb, "nobody")


def test_output_exit_code_and_no_traces(ctr: Ctr, image: str, phantom: Daemon) -> None:
    before = phantom.snapshot()
    with pytest.raises(CtrError) as raised:
        ctr.run_task(image, "short", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (raised.value.status, raised.value.stdout) == (7, "out\n")
    assert "err\n" in raised.value.stderr
    phantom.wait_for_no_traces(before)
    assert not list(groups_below(f"/{NAMESPACE}/short"))


def test_much_output_arrives_whole(ctr: Ctr, image: str) -> None:
    shown = ctr.run_task(image, "loud", "sh", "-c", "seq 1 200000")
    assert shown == "".join(f"{number}\n" for number in range(1, 200001))


def test_output_into_a_file(ctr: Ctr, image: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    ctr.start(image, "filed", "sh", "-c", "echo out; echo err >&2", flags=("--log-uri", f"file://{log}"))
    try:
        wait_until(lambda: ctr.states()["filed"][1] == "STOPPED", "the task to be stopped")
        assert sorted(log.read_text().splitlines()) == ["err", "out"]
    finally:
        ctr.remove("filed")


def test_output_to_a_program_is_refused(ctr: Ctr, image: str) -> None:
    with pytest.raises(CtrError, match=r"stdout: 'binary:///bin/true.*want the absolute path of a FIFO"):
        ctr.start(image, "piped", "true", flags=("--log-uri", "binary:///bin/true"))
    ctr.remove("piped")


def test_input_reaches_its_end(ctr: Ctr, image: str) -> None:
    command = ("run", "--rm", "--runtime", RUNTIMES["phantom"], image, "reader")
    shown = ctr.converse(*command, "sh", "-c", "echo ready; cat; echo end", given="a\nb\n")
    assert shown == "ready\na\nb\nend\n"


def test_a_terminal(ctr: Ctr, image: str) -> None:
    flags = ("run", "--rm", "--tty", "--runtime", RUNTIMES["phantom"])
    shown = ctr.on_terminal(
        *flags, image, "tty", "sh", "-c", "tty; read line; echo got $line; exit 3", typed=b"hello\n"
    )
    assert b"/dev/pts/0" in shown
    assert b"got hello" in shown


# Not what masks are made of, and not /dev/core, a link that only some runtimes make.
WORLD = """
id -u; id -g; id -G; pwd; echo $HOME; hostname; umask; ulimit -n
grep -E 'Cap|NoNew|Seccomp:' /proc/self/status
cut -d' ' -f2 /proc/mounts | sort
ls /dev | grep -vx core; set -- /proc/[0-9]*; echo $#
ip -o link | cut -d: -f2
"""


def test_a_task_sees_what_it_sees_with_runc(ctr: Ctr, containerd: Containerd, image: str) -> None:
    flags = ("--seccomp", "--memory-limit", "33554432", "--hostname", "named")
    theirs = Ctr(containerd.socket, NAMESPACE, RUNTIMES["runc"])
    ours, reference = (
        each.run_task(image, name, "sh", "-c", WORLD, flags=flags).splitlines()
        for each, name in ((ctr, "world"), (theirs, "world-runc"))
    )
    assert ours == reference


def test_execs(ctr: Ctr, image: str) -> None:
    ctr.start(image, "long", "sleep", "1000")
    try:
        command = ("tasks", "exec", "--exec-id", "one", "long", "sh", "-c", "echo ready; cat; echo end")
        assert ctr.converse(*command, given="given\n") == "ready\ngiven\nend\n"
        with pytest.raises(CtrError) as raised:
            ctr.exec("long", "two", "sh", "-c", "exit 9")
        assert raised.value.status == 9
        with pytest.raises(CtrError, match="nothing-like-it"):
            ctr.exec("long", "three", "/nothing-like-it")
        shown = ctr.on_terminal(
            *("tasks", "exec", "--tty", "--exec-id", "four", "long"),
            *("sh", "-c", "stty size; read line; echo got $line"),
            typed=b"hello\n",
        )
        assert b"got hello" in shown
        assert ctr.states()["long"][1] == "RUNNING"
    finally:
        ctr.remove("long")


def test_pause_kill_and_delete(ctr: Ctr, image: str) -> None:
    ctr.start(image, "frozen", "sleep", "1000")
    try:
        ctr.run("tasks", "pause", "frozen")
        assert ctr.states()["frozen"][1] == "PAUSED"
        ctr.run("tasks", "resume", "frozen")
        assert ctr.states()["frozen"][1] == "RUNNING"
        with pytest.raises(CtrError, match=r"running, not stopped|must be stopped"):
            ctr.run("tasks", "delete", "frozen")
        ctr.run("tasks", "pause", "frozen")
        ctr.run("tasks", "kill", "--signal", "SIGKILL", "frozen")
        wait_until(lambda: ctr.states()["frozen"][1] == "STOPPED", "the task to be stopped")
        with pytest.raises(CtrError, match=r"not running|already finished|not found"):
            ctr.run("tasks", "kill", "frozen")
        ctr.run("tasks", "delete", "frozen")
        assert "frozen" not in ctr.states()
    finally:
        ctr.remove("frozen")


def test_metrics_and_processes(ctr: Ctr, image: str) -> None:
    ctr.start(image, "measured", "sh", "-c", "sleep 1000 & wait")
    try:
        lines = dict(
            line.split()[:2] for line in ctr.run("tasks", "metrics", "measured").splitlines() if " " in line
        )
        assert int(lines["pids.current"]) == 2
        assert int(lines["memory.usage"]) > 0
        assert len(ctr.run("tasks", "ps", "measured").splitlines()) == 3
    finally:
        ctr.remove("measured")


def test_limits_hold_and_an_oom_is_told(ctr: Ctr, image: str, tmp_path: Path) -> None:
    with ctr.events(tmp_path / "events") as events:
        with pytest.raises(CtrError) as raised:
            ctr.run_task(
                image, "hungry", "sh", "-c", "tail /dev/zero", flags=("--memory-limit", str(8 << 20))
            )
        assert raised.value.status == 137
        wait_until(lambda: "/tasks/delete" in dict(events.of_tasks()), "the last event")
        assert "/tasks/oom" in dict(events.of_tasks())


def test_events_come_in_order(ctr: Ctr, image: str, tmp_path: Path) -> None:
    with ctr.events(tmp_path / "events") as events:
        ctr.start(image, "told", "sleep", "1000")
        ctr.exec("told", "e", "true")
        ctr.run("tasks", "pause", "told")
        ctr.run("tasks", "resume", "told")
        ctr.run("tasks", "kill", "--signal", "SIGKILL", "told")
        wait_until(lambda: ctr.states()["told"][1] == "STOPPED", "the task to be stopped")
        ctr.remove("told")
        wait_until(lambda: "/tasks/delete" in dict(events.of_tasks()), "the last event")
        found = [(topic, content.get("id", "")) for topic, content in events.of_tasks()]
    assert found == [
        ("/tasks/create", ""),
        ("/tasks/start", ""),
        ("/tasks/exec-added", ""),
        ("/tasks/exec-started", ""),
        ("/tasks/exit", "e"),
        ("/tasks/paused", ""),
        ("/tasks/resumed", ""),
        ("/tasks/exit", "told"),
        ("/tasks/delete", ""),
    ]


def test_a_fragment_that_dies_takes_its_task_and_no_other(ctr: Ctr, image: str) -> None:
    ctr.start(image, "victim", "sleep", "1000")
    ctr.start(image, "other", "sleep", "1000")
    try:
        pid = ctr.states()["victim"][0]
        stat = Path(f"/proc/{pid}/stat").read_text()
        os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
        wait_until(lambda: ctr.states()["victim"][1] == "STOPPED", "the task to be stopped")
        assert ctr.states()["other"][1] == "RUNNING"
    finally:
        ctr.remove("victim")
        ctr.remove("other")
