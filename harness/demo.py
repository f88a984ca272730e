"""The main job, from start to end, on private paths.

An image of Debian's busybox, a registry on loopback, phantom-cri, a pull and a pod: prints the pod's output,
whether its start was warm and the time of each stage, and removes everything. Needs root.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.daemon import Daemon
from harness.image import ImageConfig, build_image
from harness.registry import Registry
from harness.tools import ROOT
from harness.waiting import wait_until

SCRIPT = 'echo "hello from $(hostname), pid $$, $(ip -4 -o addr show eth0 | awk "{print \\$4}")"'


def step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def phantom(daemon: Daemon, *arguments: str) -> None:
    """Prints and runs the `phantom` command on this daemon; raises CalledProcessError."""
    print("$ phantom", *arguments, flush=True)
    subprocess.run([ROOT / ".venv/bin/phantom", "--host", daemon.endpoint, *arguments], check=True)


def warm_fragments(daemon: Daemon) -> bool:
    return 'phantom_pool_fragments{pool="default",state="warm"} 2.0' in daemon.metrics()


def demo(folder: Path, cleanup: contextlib.ExitStack) -> None:
    step("a registry on loopback, with an image of Debian's busybox")
    registry = cleanup.enter_context(Registry(folder / "registry"))
    build_image(folder / "image", ImageConfig(cmd=["/bin/sh", "-c", SCRIPT]))
    reference = registry.push(folder / "image", "hello")
    print(reference)

    step("phantom-cri with a pool of two warm fragments")
    daemon = cleanup.enter_context(Daemon(folder / "node", {"pools": [{"name": "default", "size": 2}]}))
    wait_until(lambda: warm_fragments(daemon), "two warm fragments")
    phantom(daemon, "pools")

    step("pull")
    phantom(daemon, "pull", reference)

    step("a pod")
    phantom(
        daemon, "run", "--rm", "--timing", "--log-dir", str(folder / "logs"), "--name", "hello", reference
    )


def main() -> int:
    # SIGTERM has to clean up too: it becomes an exception in the main thread.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="phantom-") as name:
        try:
            with contextlib.ExitStack() as cleanup:
                demo(Path(name), cleanup)
        except (subprocess.CalledProcessError, RuntimeError, TimeoutError) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
    step("all removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
