"""`phantom plan`: what it says is what the fragment got, at any time of a container's life."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from harness.daemon import Daemon
from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.api.phantom.v1 import node_pb2 as wire
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, Pod, limited, linux, refusal

pytestmark = pytest.mark.root

SLEEP = ["sleep", "1000"]


def plan_of(cri: Cri, container_id: str) -> Any:
    return cri.node.ShowPlan(wire.ShowPlanRequest(container_id=container_id))


def texts(shown: Any) -> list[str]:
    return [op.text for op in shown.ops]


def facts(shown: Any) -> dict[str, str]:
    return {fact.name: fact.text for fact in shown.facts}


def phantom(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "phantom_cri.cli", "--host", daemon.endpoint, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("container_id", ["", "absent", "f" * 64])
def test_an_unknown_container_is_not_found(cri: Cri, pod: Pod, container_id: str) -> None:
    pod.create(SLEEP)
    found = refusal(lambda: plan_of(cri, container_id))
    assert found == (grpc.StatusCode.NOT_FOUND, f"container {container_id!r} not found")


def test_the_command_refuses_an_unknown_name(node: Daemon) -> None:
    done = phantom(node, "plan", "absent")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "phantom: No such pod: absent\n")


def test_a_failed_start_s_error_names_an_op_of_the_plan(cri: Cri, pod: Pod) -> None:
    mount = pb.Mount(container_path="/data", host_path="/proc/self/mounts/not-a-folder")
    container = pod.create(SLEEP, mounts=[mount])
    _, message = refusal(container.start)
    named = re.search(r"op (\d+), (.*): [A-Z]+ \(", message)
    assert named, message
    shown = plan_of(cri, container.id)
    assert shown.sent
    assert texts(shown)[int(named[1])] == named[2]


def test_it_is_the_same_from_creation_to_the_end(cri: Cri, pod: Pod) -> None:
    container = pod.create(SLEEP)
    created = plan_of(cri, container.id[:20])
    assert created.sent
    assert (created.container_id, created.pod_sandbox_id) == (container.id, pod.id)
    assert [op.name for op in created.ops][-1] == "EXEC"
    assert container.status.state == pb.CONTAINER_CREATED
    container.start()
    assert plan_of(cri, container.id) == created
    container.stop()
    assert plan_of(cri, container.id) == created
    pod.stop()
    assert plan_of(cri, container.id) == created
    container.remove()
    assert refusal(lambda: plan_of(cri, container.id))[0] == grpc.StatusCode.NOT_FOUND


def test_it_tells_who_the_process_is_and_what_holds_it(cri: Cri, pod: Pod) -> None:
    security = {"run_as_user": pb.Int64Value(value=7), "run_as_group": pb.Int64Value(value=8)}
    settings = linux(no_new_privs=True, capabilities=pb.Capability(drop_capabilities=["ALL"]), **security)
    settings.resources.CopyFrom(limited(memory_limit_in_bytes=64 << 20).resources)
    container = pod.create(SLEEP, linux=settings, tty=True)
    shown = plan_of(cri, container.id)
    said = facts(shown)
    assert said["user"] == "7:8 with groups 8"
    assert (said["pid namespace"], said["capabilities"]) == ("its own", "none")
    assert said["new privileges"] == "never"
    assert said["seccomp"].startswith("a filter of ")
    assert said["policy"].startswith("default ")
    assert re.search(r"memory\.(max|limit_in_bytes) 67108864", said["limits"])
    assert said["streams"].startswith("a terminal, log /")
    assert said["cgroup"] == json.loads(container.details)["cgroup"]
    assert "become user 7:8 groups 8" in texts(shown)


def test_values_of_variables_are_left_out(node: Daemon, cri: Cri, pod: Pod) -> None:
    container = pod.start(SLEEP, envs=[pb.KeyValue(key="TOKEN", value=b"hunter2")])
    assert "TOKEN" in facts(plan_of(cri, container.id))["environment"].split(", ")
    for flags in ([], ["--json"]):
        done = phantom(node, "plan", container.id, *flags)
        assert (done.returncode, done.stderr) == (0, "")
        assert "TOKEN" in done.stdout
        assert "hunter2" not in done.stdout


@pytest.fixture
def debugged(make_daemon: DaemonMaker) -> Daemon:
    return make_daemon({"pools": [], "log": {"level": "debug", "format": "json"}}).start()


@pytest.fixture
def client(debugged: Daemon, busybox_image: str) -> Iterator[Cri]:
    client = Cri(debugged.endpoint)
    client.pull(busybox_image)
    yield client
    client.close()


def logged_plans(daemon: Daemon) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in daemon.log_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["logger"].endswith("plan_log")]


def test_a_debugging_daemon_logs_each_plan_as_it_is_sent(
    debugged: Daemon, client: Cri, tmp_path: Any
) -> None:
    pod = client.pod(tmp_path).run_sandbox()
    container = pod.start(SLEEP, envs=[pb.KeyValue(key="TOKEN", value=b"hunter2")])
    container.exec("true")
    of_pod = [plan for plan in logged_plans(debugged) if plan.get("sandbox_id") == pod.id]
    (of_container,) = [
        plan for plan in of_pod if plan["message"].startswith(f"plan for process {container.id}")
    ]
    assert of_container["container_id"] == container.id
    shown = texts(plan_of(client, container.id))
    assert of_container["lines"] == [f"{index:3} {text}" for index, text in enumerate(shown)]
    last = [plan["lines"][-1].split(maxsplit=1)[1] for plan in of_pod]
    assert "exec sh -c true" in last
    assert any(plan["message"].startswith("plan for the fragment itself") for plan in of_pod)
    assert "hunter2" not in debugged.log_text()


def test_another_daemon_makes_it_again(debugged: Daemon, client: Cri, tmp_path: Any) -> None:
    pod = client.pod(tmp_path).run_sandbox()
    pod.create(SLEEP)  # it takes /dev and /sys from the fragment, which a later daemon cannot know
    made: list[Container] = [pod.create(SLEEP), pod.start(SLEEP), pod.run("true")]
    before = [plan_of(client, container.id) for container in made]
    assert all(shown.sent for shown in before)
    debugged.kill()
    debugged.start()
    client.wait_served()
    after = [plan_of(client, container.id) for container in made]
    assert not any(shown.sent for shown in after)
    for earlier, later in zip(before, after, strict=True):
        assert list(later.ops) == list(earlier.ops)
        assert facts(later) == facts(earlier)
    told = phantom(debugged, "plan", made[1].id).stdout
    assert told.startswith("Made again from the container's record")
    made[0].start()
    assert plan_of(client, made[0].id).sent
