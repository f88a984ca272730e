"""That the right values are the peer's: the same pods on containerd, the same loss, the same look."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cgroups import remove_cgroups
from harness.containerd import Choices, Containerd
from harness.daemon import DRIVER, Daemon
from harness.host import kill_below, unmount_below
from harness.image import PAUSE_SOURCE, ImageConfig, program_layer, write_layout
from harness.reboot import go_down
from harness.registry import Registry, serve_from
from harness.tools import tool
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Cri, Pod, limited, refusal

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(DRIVER == "systemd", reason="the peer is set up for cgroupfs"),
]

PARENT = "/pf-reboot-peer"


@pytest.fixture
def theirs(registry: Registry, short_folder: Path) -> Iterator[Containerd]:
    tool("containerd")
    write_layout(
        short_folder / "pause", [program_layer("pause", PAUSE_SOURCE)], ImageConfig(entrypoint=["/pause"])
    )
    pause = registry.push(short_folder / "pause", "pause")
    with tempfile.TemporaryDirectory(prefix="pfr-") as folder:
        peer = Containerd(Path(folder) / "c", Choices(pause, bridge="pfreboot0", subnet="10.217.0.0/16"))
        serve_from(registry.host, peer.registries, registry.host)
        try:
            yield peer.start()
        finally:
            peer.destroy()
            remove_cgroups(PARENT)


def peer_goes_down(peer: Containerd, namespaces: list[str]) -> None:
    """As `go_down`: containerd, shims, pods, and all that is in memory."""
    assert peer.child is not None
    peer.child.kill()
    kill_below(peer.state)
    remove_cgroups(PARENT)
    unmount_below(peer.folder)
    for path in namespaces:
        subprocess.run(["umount", "--lazy", path], check=True)
        os.unlink(path)
    subprocess.run(["ip", "link", "delete", peer.choices.bridge], stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(peer.state)


def network_namespaces(pods: list[Pod]) -> list[str]:
    found = []
    for pod in pods:
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)
        info = json.loads(pod.cri.runtime.PodSandboxStatus(request).info["info"])
        spaces = info["runtimeSpec"]["linux"]["namespaces"]
        found += [one["path"] for one in spaces if one["type"] == "network" and one.get("path")]
    return found


def seen(container: Container) -> dict[str, Any]:
    status = container.status
    return {
        "state": pb.ContainerState.Name(status.state),
        "exit_code": status.exit_code,
        "reason": status.reason,
        "created": bool(status.created_at),
        "started": bool(status.started_at),
        "finished": bool(status.finished_at),
    }


def life(cri: Cri, logs: Path, down: Callable[[list[Pod]], None]) -> dict[str, Any]:
    """What is seen of everything before and after the loss, and whether all of it can be removed."""
    resources = pb.LinuxPodSandboxConfig(cgroup_parent=PARENT)
    pods = [cri.pod(logs, linux=resources).run_sandbox() for _ in range(2)]
    pod, stopped = pods
    killed = pod.start("sleep 100")
    os.kill(json.loads(killed.details)["pid"], signal.SIGKILL)
    killed.wait_exited()
    removed = pod.run("true")
    removed.remove()
    made = {
        "completed": pod.run("true"),
        "failed": pod.run("exit 3"),
        "killed": killed,
        "eater": pod.run("tail /dev/zero", linux=limited(memory_limit_in_bytes=16 << 20)),
        "running": pod.start("sleep 100"),
        "created": pod.create("true"),
        "ended with its pod": stopped.run("exit 4"),
    }
    stopped.stop()
    exact = {name: made[name].status for name in made if name != "running"}
    before = {name: seen(container) for name, container in made.items()}
    time.sleep(0.5)
    down([pod])
    cri.wait_served()
    answer = {
        "before": before,
        "after": {name: seen(container) for name, container in made.items()},
        "unchanged": {name: made[name].status == status for name, status in exact.items()},
        "pods": [pb.PodSandboxState.Name(one.status.state) for one in pods],
        "addresses": [one.ip for one in pods],
        "names": [one.status.metadata.attempt for one in pods],
        "known": cri.containers() == {one.id for one in made.values()},
        "refused": [bool(refusal(one.start)) for one in made.values()]
        + [bool(refusal(lambda: made["running"].exec("true"))), bool(refusal(pod.run_sandbox))],
    }
    again = cri.pod(logs, linux=resources, metadata=pod.config.metadata)
    again.config.metadata.attempt = 1
    name = pb.ContainerMetadata(name="c0", attempt=1)  # as the kubelet counts them
    answer["again"] = again.run_sandbox().run("exit 5", metadata=name).status.exit_code
    for container in made.values():
        container.stop()
        container.remove()
    for one in (*pods, again):
        one.stop()
        one.remove()
    answer["left"] = (cri.pods(), cri.containers())
    return answer


def test_it_looks_as_on_containerd(
    theirs: Containerd, daemon: Daemon, busybox_image: str, tmp_path: Path
) -> None:
    def ours_down(pods: list[Pod]) -> None:
        go_down(daemon)
        remove_cgroups(PARENT)
        daemon.start()

    def theirs_down(pods: list[Pod]) -> None:
        peer_goes_down(theirs, network_namespaces(pods))
        theirs.start()

    answers = {}
    for name, endpoint, down in (
        ("theirs", theirs.endpoint, theirs_down),
        ("ours", daemon.endpoint, ours_down),
    ):
        with contextlib.closing(Cri(endpoint)) as cri:
            cri.pull(busybox_image)
            answers[name] = life(cri, tmp_path / name, down)
    assert answers["theirs"]["after"]["running"] == {
        "state": "CONTAINER_EXITED",
        "exit_code": 255,
        "reason": "Unknown",
        "created": True,
        "started": True,
        "finished": True,
    }
    assert all(answers["ours"]["unchanged"].values())
    assert answers["ours"] == answers["theirs"]
