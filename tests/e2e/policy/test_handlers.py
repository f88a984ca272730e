"""Runtime handlers with a policy and a driver of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.daemon import Daemon
from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.api.phantom.v1 import node_pb2
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, refusal

pytestmark = pytest.mark.root

DENIED_BY_STRICT = "mknod /n c 1 3"
HANDLERS = [{"name": "hostile", "policy": "strict"}]


@pytest.fixture
def daemon(make_daemon: DaemonMaker) -> Daemon:
    return make_daemon({"pools": [{"name": "default", "size": 1}], "handlers": HANDLERS}).start()


@pytest.fixture
def cri(daemon: Daemon, busybox_image: str) -> Iterator[Cri]:
    with closing(Cri(daemon.endpoint)) as client:
        client.pull(busybox_image)
        yield client


def details(container: Container) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(container.details)
    return found


def restart(daemon: Daemon, cri: Cri, handlers: list[dict[str, str]]) -> None:
    daemon.kill()
    daemon.config["handlers"] = handlers
    daemon.start()
    cri.wait_served()


def change_record(daemon: Daemon, container: Container, **fields: str | None) -> None:
    """Of a container, while no daemon runs; None: without that field."""
    (path,) = (daemon.state / "pods").glob(f"*/containers/{container.id}.json")
    record = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in record.items() if value is not None}))


def test_a_handlers_policy_holds_its_pods_and_no_others(cri: Cri, tmp_path: Path) -> None:
    strict = cri.pod(tmp_path).run_sandbox("hostile").start(f"{DENIED_BY_STRICT} 2>&1; sleep 100")
    usual = cri.pod(tmp_path).run_sandbox().start("sleep 100")
    assert b"Operation not permitted" in strict.exec(DENIED_BY_STRICT).stderr
    assert usual.exec(DENIED_BY_STRICT).exit_code == 0
    assert (details(strict)["policy"]["name"], details(strict)["driver"]) == ("strict", "native")
    assert (details(usual)["policy"]["name"], details(usual)["driver"]) == ("default", "native")


def test_the_node_shows_each_handlers_driver_and_policy(cri: Cri) -> None:
    told = json.loads(cri.runtime.Status(pb.StatusRequest(verbose=True)).info["config"])
    assert told["runtimeHandlers"] == [
        {"name": "", "driver": "native", "policy": "default"},
        {"name": "phantom", "driver": "native", "policy": "default"},
        {"name": "hostile", "driver": "native", "policy": "strict"},
    ]
    policies = cri.node.ListPolicies(node_pb2.ListPoliciesRequest()).policies
    shown = {policy.name: list(policy.handlers) for policy in policies}
    assert shown == {"default": ["", "phantom"], "strict": ["hostile"]}


def test_pods_of_a_handler_that_is_gone_run_on_and_get_no_new_containers(
    daemon: Daemon, cri: Cri, tmp_path: Path
) -> None:
    pod = cri.pod(tmp_path).run_sandbox("hostile")
    container, waiting = pod.start("sleep 100"), pod.create("echo fine")
    restart(daemon, cri, [])
    code, text = refusal(lambda: pod.create("true"))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "runtime handler 'hostile' was removed" in text and "(configuration: handlers)" in text
    assert b"Operation not permitted" in container.exec(DENIED_BY_STRICT).stderr
    waiting.start()
    waiting.wait_exited()
    assert waiting.output == "fine"
    restart(daemon, cri, HANDLERS)
    assert details(pod.create("true"))["policy"]["name"] == "strict"


def test_a_container_keeps_its_driver_over_daemons(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    pod = cri.pod(tmp_path).run_sandbox()
    running, old, later = pod.start("sleep 100"), pod.create("echo fine"), pod.create("echo fine")
    daemon.kill()
    change_record(daemon, old, driver=None)  # as daemons wrote it that had one driver
    change_record(daemon, later, driver="wasm")
    daemon.start()
    cri.wait_served()
    assert running.tell("echo fine") == "fine"
    assert (details(old)["driver"], details(later)["driver"]) == ("native", "wasm")
    old.start()
    old.wait_exited()
    assert old.output == "fine"
    code, text = refusal(later.start)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "runtime driver 'wasm'" in text and "only native" in text
    later.remove()


def test_phantom_run_takes_the_paths_of_its_handlers_policy(
    make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path
) -> None:
    handlers = [{"name": "usual", "policy": "default"}]
    daemon = make_daemon({"policy": {"default": "strict"}, "handlers": handlers}).start()
    with closing(Cri(daemon.endpoint)) as cri:
        cri.pull(busybox_image)
    phantom = [sys.executable, "-m", "phantom_cri.cli", "--host", daemon.endpoint, "run", "--rm"]
    script = "ls /sys/kernel | wc -l"  # strict masks it
    seen = []
    for flags in ([], ["--runtime-handler", "usual"]):
        command = [*phantom, "--log-dir", str(tmp_path), *flags, busybox_image, "sh", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        seen.append(int(done.stdout) > 0)
    assert seen == [False, True]


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ({"policy": "stirct"}, "handlers[0].policy: unknown policy 'stirct', known are default, strict"),
        ({"driver": "wasm"}, "handlers[0].driver: must be the name of a driver: native, got 'wasm'"),
    ],
)
def test_a_daemon_does_not_start_with_what_is_not_there(
    tmp_path: Path, handler: dict[str, str], message: str
) -> None:
    config = tmp_path / "config.yaml"
    folders = {"root": str(tmp_path / "root"), "state": str(tmp_path / "state"), "metrics_address": ""}
    parent = {"default_parent": "/phantom-never"}
    config.write_text(json.dumps({"handlers": [{"name": "a", **handler}], "cgroup": parent, **folders}))
    command = [sys.executable, "-m", "phantom_cri", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in Path("/sys/fs/cgroup").glob("**/phantom-never*")]
