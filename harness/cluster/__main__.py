"""A cluster for people: prints how to use it, waits for Ctrl-C and removes everything. Needs root."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.cluster.cluster import BUSYBOX, RUNTIME_CLASS, Cluster
from harness.cluster.kubectl import KubectlError
from harness.tools import tool

USE = """
The cluster is ready; its node runs {runtime}. In another terminal, as root:

    export KUBECONFIG={kubeconfig}
    export PATH={path}:$PATH
    kubectl get nodes -o wide
    kubectl run hello --image={busybox} {overrides}-- sh -c 'echo hello from $(hostname); sleep 3600'
    kubectl logs hello

The node cannot reach other registries. An image in a file becomes registry.k8s.io/NAME:TAG like this:

    {enter} \\
        skopeo copy --dest-tls-verify=false docker-archive:FILE docker://{registry}/NAME:TAG

Logs of the components: {folder}
Ctrl-C ends the cluster and removes everything.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.cluster", description=__doc__)
    parser.add_argument("--runtime", choices=["phantom", "containerd"], default="phantom")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    with tempfile.TemporaryDirectory(prefix="pk-") as name:
        try:
            with Cluster(Path(name), arguments.runtime) as cluster:
                if arguments.runtime == "phantom":
                    cluster.kubectl.apply(RUNTIME_CLASS)
                print(usage(cluster), flush=True)
                signal.pause()
        except (subprocess.CalledProcessError, KubectlError, RuntimeError, TimeoutError) as error:
            print(f"cluster: {error}", file=sys.stderr)
            return 1
    return 0


def leave(number: int, _frame: object) -> None:
    """Once is enough: a second signal would leave things behind."""
    for later in (signal.SIGINT, signal.SIGTERM):
        signal.signal(later, signal.SIG_IGN)
    print("removing everything", flush=True)
    sys.exit(128 + number)


def usage(cluster: Cluster) -> str:
    overrides = """--overrides='{"spec": {"runtimeClassName": "phantom"}}' """
    return USE.format(
        runtime=cluster.name,
        kubeconfig=cluster.kubeconfig,
        path=tool("kubectl").parent,
        busybox=BUSYBOX,
        overrides=overrides if cluster.name == "phantom" else "",
        enter=" ".join(cluster.place.enter),
        registry=cluster.registry.host,
        folder=cluster.folder,
    )


if __name__ == "__main__":
    sys.exit(main())
