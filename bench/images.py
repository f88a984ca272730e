"""The benchmark's images: a workload from Debian's busybox, and a pause program for the peers' sandboxes."""

from __future__ import annotations

from pathlib import Path

from bench.contenders import Images
from bench.workload import WORKLOAD
from harness.image import PAUSE_SOURCE, ImageConfig, build_image, program_layer, write_layout
from harness.registry import Registry


def publish_images(folder: Path, registry: Registry) -> Images:
    """Builds both images under `folder` and pushes them."""
    build_image(folder / "workload", ImageConfig(cmd=WORKLOAD))
    write_layout(
        folder / "pause", [program_layer("pause", PAUSE_SOURCE)], ImageConfig(entrypoint=["/pause"], cmd=())
    )
    return Images(
        registry.host,
        registry.push(folder / "workload", "workload"),
        registry.push(folder / "pause", "pause"),
    )
