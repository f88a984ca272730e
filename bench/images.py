"""The benchmark's images: a workload from Debian's busybox, and a pause program for the peers' sandboxes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.contenders import Images
from bench.workload import WORKLOAD
from tests.e2e.harness.image import ImageConfig, LayerBuilder, build_image, write_layout
from tests.e2e.harness.registry import Registry

PAUSE_SOURCE = """\
#include <signal.h>
#include <unistd.h>
static void leave(int signal_number) { _exit(signal_number == SIGTERM || signal_number == SIGINT ? 0 : 1); }
int main(void)
{
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    signal(SIGCHLD, SIG_IGN);
    for (;;)
        pause();
}
"""


def publish_images(folder: Path, registry: Registry) -> Images:
    """Builds both images under `folder` and pushes them."""
    build_image(folder / "workload", ImageConfig(cmd=WORKLOAD))
    program = folder / "pause-program"
    subprocess.run(
        ["gcc", "-Os", "-static", "-s", "-x", "c", "-", "-o", program],
        input=PAUSE_SOURCE,
        text=True,
        check=True,
    )
    layer = LayerBuilder().file("pause", program.read_bytes(), 0o755).finish()
    write_layout(folder / "pause", [layer], ImageConfig(entrypoint=["/pause"], cmd=()))
    return Images(
        registry.host,
        registry.push(folder / "workload", "workload"),
        registry.push(folder / "pause", "pause"),
    )
