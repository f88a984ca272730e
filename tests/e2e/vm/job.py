"""Inside the machine, before and after it is reset: `python -m tests.e2e.vm.job begin|churn|look FOLDER`.

FOLDER is on the machine's disk. The last line of the output is JSON: what CRI says of containers. `churn`
goes on until the power goes; each line is what a client was told, and when.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from harness.daemon import Daemon
from harness.image import ImageConfig, build_image
from harness.registry import Registry
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Cri

ON_DISK_S = 3.0
"""An emulated machine is some twenty times slower than the machine that the documented window is for."""


def main() -> None:
    step, folder = sys.argv[1], Path(sys.argv[2])
    memory = Path("/run/pf")
    memory.mkdir(exist_ok=True)
    daemon = Daemon(folder, {"listen": f"unix://{memory}/cri.sock", "state": f"{memory}/state"})
    daemon.socket = memory / "cri.sock"
    cri = Cri(daemon.start().endpoint)
    if step == "churn":
        churn(cri, daemon)
    said = begin(cri, daemon, memory) if step == "begin" else look(cri, daemon)
    print(json.dumps(said))  # the daemon runs on


def begin(cri: Cri, daemon: Daemon, memory: Path) -> dict[str, Any]:
    with Registry(memory / "registry") as registry:
        build_image(memory / "image", ImageConfig(cmd=["/bin/sh"]))
        cri.pull(registry.push(memory / "image", "busybox"))
    pod = cri.pod(daemon.folder / "logs").run_sandbox()
    made = {
        "job": pod.run("echo done"),
        "failed": pod.run("exit 3"),
        "running": pod.start("echo x > /written; sleep 1000"),
        "created": pod.create("true"),
    }
    time.sleep(ON_DISK_S)
    return {name: one(container) for name, container in made.items()}


def churn(cri: Cri, daemon: Daemon) -> NoReturn:
    cri.image = cri.images.ListImages(pb.ListImagesRequest()).images[0].id
    for number in itertools.count():
        pod = cri.pod(daemon.folder / "logs").run_sandbox()
        ended = pod.run(f"exit {number % 100}")
        pod.start("sleep 1000")
        tell("exited", one(ended))
        if number % 3 == 0:
            tell("removing", one(ended))
            pod.remove()
            tell("removed", {"id": ended.id})
    raise AssertionError


def tell(what: str, about: dict[str, Any]) -> None:
    print(json.dumps({"what": what, "at": time.monotonic(), **about}), flush=True)


def look(cri: Cri, daemon: Daemon) -> dict[str, Any]:
    found = {container_id: one(Container(cri, container_id)) for container_id in cri.containers()}
    listed = cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest()).items
    pods = [pb.PodSandboxState.Name(pod.state) for pod in listed]
    for pod in listed:
        cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    for container_id in found:
        cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=container_id))
    cri.remove_pods()
    uppers = [daemon.root / "containers" / container_id for container_id in found]
    wait_until(lambda: not any(upper.exists() for upper in uppers), "the writable layers to go", 30)
    images = cri.images.ListImages(pb.ListImagesRequest()).images
    cri.image = images[0].id
    again = cri.pod(daemon.folder / "logs").run_sandbox().run("exit 4")
    return {"containers": found, "pods": pods, "again": one(again)}


def one(container: Container) -> dict[str, Any]:
    status = container.status
    return {
        "id": status.id,
        "state": pb.ContainerState.Name(status.state),
        "exit_code": status.exit_code,
        "reason": status.reason,
        "finished_at": status.finished_at,
    }


if __name__ == "__main__":
    main()
