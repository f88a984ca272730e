"""Pods of containerd's CRI on our shim, with a pause container: one fragment holds all of a pod."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.containerd import Containerd
from harness.crictl import Crictl, CrictlError
from harness.daemon import Daemon
from harness.host import processes_below
from harness.waiting import wait_until

pytestmark = pytest.mark.root

NODE, CONTAINER = 2, 1  # NamespaceMode
SCRIPT = "echo started; trap 'exit 5' TERM; sleep 1000 & wait"


def pod_config(name: str, logs: Path, **security: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "log_directory": str(logs),
        "linux": {"security_context": security},
    }


def container_config(image: str, name: str = "c", **security: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "image": {"image": image},
        "command": ["sh", "-c", SCRIPT],
        "log_path": f"{name}.log",
        "linux": {"security_context": security},
    }


SECURITY: dict[str, dict[str, Any]] = {
    "plain": {},
    "privileged": {"privileged": True},
    "host-network": {"namespace_options": {"network": NODE}},
    "host-all": {"namespace_options": {"network": NODE, "pid": NODE, "ipc": NODE}},
    "own-pids": {"namespace_options": {"pid": CONTAINER}},
}


@pytest.mark.parametrize("kind", SECURITY)
def test_a_pods_life(
    crictl: Crictl, containerd: Containerd, phantom: Daemon, image: str, kind: str, tmp_path: Path
) -> None:
    before = phantom.snapshot()
    config = pod_config(kind, tmp_path, **SECURITY[kind])
    pod = crictl.run_pod(config, "phantom")
    try:
        one, two = (
            crictl.create(pod, container_config(image, name, **SECURITY[kind]), config) for name in "ab"
        )
        for each in (one, two):
            crictl.run("start", each)
        assert len(processes_below(phantom.state) - {phantom.running.pid}) == 1
        assert crictl.run("exec", one, "cat", "/etc/hostname") == crictl.run("exec", two, "hostname")
        assert crictl.json("stats", one)["stats"][0]["memory"]["workingSetBytes"]["value"] != "0"
        wait_until(lambda: "started" in (tmp_path / "a.log").read_text(), "the log")
        crictl.run("stop", "--timeout", "10", one)
        status = crictl.json("inspect", one)["status"]
        assert (status["state"], status["exitCode"]) == ("CONTAINER_EXITED", 5)
        crictl.run("rm", one)
        assert crictl.json("inspect", two)["status"]["state"] == "CONTAINER_RUNNING"
    finally:
        crictl.run("rmp", "--force", pod)
    phantom.wait_for_no_traces(before)


def test_pods_side_by_side_with_runc(crictl: Crictl, image: str, tmp_path: Path) -> None:
    configs = {handler: pod_config(f"side-{handler}", tmp_path) for handler in ("runc", "phantom")}
    pods = {handler: crictl.run_pod(config, handler) for handler, config in configs.items()}
    try:
        shown = {}
        for handler, pod in pods.items():
            container = crictl.create(pod, container_config(image, handler), configs[handler])
            crictl.run("start", container)
            shown[handler] = crictl.run("exec", container, "sh", "-c", "ip route | wc -l; ls /proc/1/ns; id")
        assert shown["phantom"] == shown["runc"]
    finally:
        for pod in pods.values():
            crictl.run("rmp", "--force", pod)


def test_limits_can_be_changed(crictl: Crictl, image: str, tmp_path: Path) -> None:
    config = pod_config("limits", tmp_path)
    pod = crictl.run_pod(config, "phantom")
    try:
        wanted = container_config(image)
        wanted["linux"]["resources"] = {"memory_limit_in_bytes": 64 << 20}
        container = crictl.create(pod, wanted, config)
        crictl.run("start", container)
        for limit in (64 << 20, 32 << 20):
            crictl.run("update", "--memory", str(limit), container)
            script = "cat /sys/fs/cgroup/memory.max || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
            assert crictl.run("exec", container, "sh", "-c", script).strip() == str(limit)
        with pytest.raises(CrictlError, match="memory"):
            crictl.run("update", "--memory", "1", container)
        assert crictl.json("inspect", container)["status"]["state"] == "CONTAINER_RUNNING"
    finally:
        crictl.run("rmp", "--force", pod)


def test_a_container_that_cannot_start(crictl: Crictl, phantom: Daemon, image: str, tmp_path: Path) -> None:
    before = phantom.snapshot()
    config = pod_config("failing", tmp_path)
    pod = crictl.run_pod(config, "phantom")
    try:
        wrong = container_config(image) | {"command": ["/nothing-like-it"]}
        with pytest.raises(CrictlError, match="nothing-like-it"):
            crictl.run("start", container := crictl.create(pod, wrong, config))
        status = crictl.json("inspect", container)["status"]
        assert (status["state"], status["exitCode"]) == ("CONTAINER_EXITED", 128)
    finally:
        crictl.run("rmp", "--force", pod)
    phantom.wait_for_no_traces(before)
