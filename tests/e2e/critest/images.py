"""Every image that critest 1.36 names, made of what Debian ships, under the names it has compiled in.

They are pushed once into a folder outside the checkout that is named after all they are made of; later runs
only serve that folder. What each image has to contain is said where critest's source asks for it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness import image as image_module
from harness.image import (
    BUSYBOX,
    GROUP,
    PASSWD,
    PAUSE_SOURCE,
    ImageConfig,
    LayerBuilder,
    busybox_layer,
    program_layer,
    shared_libraries,
    write_layout,
)
from harness.registry import Registry
from harness.tools import tool

REGISTRIES = ("registry.k8s.io", "k8s.gcr.io", "gcr.io")
E2E = "e2e-test-images"
STAGING = "k8s-staging-cri-tools"
SANDBOX = "pause:3.10"
# Applets that busybox lacks: critest looks for processes and shared memory with them.
TOOLS = (Path("/usr/bin/pgrep"), Path("/usr/bin/ipcs"))

NGINX_CONF = """\
error_log /dev/stderr;
pid /var/run/nginx.pid;
events {{}}
http {{
    access_log off;
    server {{
        listen {port};
        location / {{ return 200 "hello from port {port}\\n"; }}
    }}
}}
"""
# The suite reads the effective user from this one's output; the file is setuid root.
EFFECTIVE_UID_SOURCE = """\
#include <stdio.h>
#include <unistd.h>
int main(void)
{
    return printf("Effective uid: %u\\n", geteuid()) < 0;
}
"""


@dataclass(frozen=True)
class Image:
    """Uncompressed layers, lowest first, and the `name:tag`s they are published under."""

    names: tuple[str, ...]
    layers: tuple[bytes, ...]
    config: ImageConfig = ImageConfig()  # noqa: RUF009 (frozen)


class Recipe:
    """What the images are made of on this machine."""

    @cached_property
    def base(self) -> bytes:
        return busybox_layer(TOOLS)

    def images(self) -> Iterator[Image]:
        """Every image; the one that critest pins by digest cannot be made."""
        yield Image((f"{E2E}/busybox:1.29-2",), (self.base,))
        yield self._nginx(f"{E2E}/nginx:1.14-2", 80)
        yield self._nginx(f"{STAGING}/hostnet-nginx-{image_module.ARCHITECTURE}:latest", 12003)
        yield self._httpd()
        yield self._effective_uid()
        yield from self._pauses()
        yield self._predefined_group()
        for suffix, user in {
            "uid": "1002",
            "username": "www-data",
            "uid-group": "1003:1004",
            "username-group": "www-data:1004",
        }.items():
            yield self._marked(f"test-image-user-{suffix}:latest", config=ImageConfig(user=user))
        for name in ("1:latest", "2:latest", "3:latest", "latest:latest", "tag:test", "tag:all"):
            yield self._marked(f"test-image-{name}")
        yield self._marked("test-image-tags:1", "test-image-tags:2", "test-image-tags:3")

    def _marked(self, *names: str, config: ImageConfig | None = None) -> Image:
        """busybox and a file with the image's name, so that no two are the same image."""
        layer = LayerBuilder().file("image-name", names[0]).finish()
        full = tuple(f"{STAGING}/{name}" for name in names)
        return Image(full, (self.base, layer), config or ImageConfig())

    def _nginx(self, name: str, port: int) -> Image:
        """Answers 200 at `port`; the suite looks for "master process" and /var/run/nginx.pid."""
        program = tool("nginx")
        layer = LayerBuilder()
        for folder in ("etc/nginx", "var/lib", "var/lib/nginx", "var/run", "var/log", "usr/sbin"):
            layer.directory(folder)
        layer.file("etc/nginx/nginx.conf", NGINX_CONF.format(port=port))
        layer.file("usr/sbin/nginx", program.read_bytes(), 0o755)
        for library in shared_libraries(program):
            layer.file(library.relative_to("/").as_posix(), library.read_bytes(), 0o755)
        command = ("nginx", "-g", "daemon off; user www-data www-data;")
        return Image((name,), (self.base, layer.finish()), ImageConfig(cmd=command))

    def _httpd(self) -> Image:
        """busybox's web server. It does not say its name; the shell does, and the log has to have it."""
        layer = LayerBuilder().directory("www").file("www/index.html", "It works!\n").finish()
        command = ("sh", "-xc", "exec httpd -f -vv -p 80 -h /www")
        return Image((f"{E2E}/httpd:2.4.39-4",), (self.base, layer), ImageConfig(cmd=command))

    def _effective_uid(self) -> Image:
        layer = program_layer("effective-uid", EFFECTIVE_UID_SOURCE, mode=0o4755)
        return Image((f"{E2E}/nonewprivs:1.3",), (self.base, layer), ImageConfig(("/effective-uid",), ()))

    def _pauses(self) -> Iterator[Image]:
        """The one that the suite pulls under two hosts and removes, and another for a peer's sandboxes."""
        layer = program_layer("pause", PAUSE_SOURCE)
        yield Image(("pause:3.9",), (layer,), ImageConfig(("/pause",), ()))
        yield Image((SANDBOX,), (layer,), ImageConfig(("/pause",), (), labels={"for": "sandboxes"}))

    def _predefined_group(self) -> Image:
        layer = LayerBuilder()
        layer.file("etc/passwd", f"{PASSWD}default-user:x:1000:1000::/home:/bin/sh\n")
        layer.file("etc/group", f"{GROUP}default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")
        name = f"{STAGING}/test-image-predefined-group:latest"
        return Image((name,), (self.base, layer.finish()), ImageConfig(user="1000"))


def inputs() -> Iterator[Path]:
    """Every file whose content decides what the images are."""
    yield from (Path(__file__), Path(image_module.__file__))
    for program in (BUSYBOX, *TOOLS, tool("nginx")):
        yield program
        yield from shared_libraries(program)


def published() -> Path:
    """The storage folder of a registry that has every image, filled on first use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "phantom-fragment"
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in inputs()))
    storage = cache / f"critest-images-{digest.hexdigest()[:16]}"
    if not storage.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="critest-images-part-") as name:
            publish(Path(name))
            shutil.rmtree(storage, ignore_errors=True)
            (Path(name) / "storage").rename(storage)
    return storage


def publish(folder: Path) -> None:
    """Builds every image below `folder` and pushes it to a registry that stores in `folder`/storage."""
    with Registry(folder, storage=folder / "storage") as registry:
        for number, image in enumerate(Recipe().images()):
            layout = folder / f"layout-{number}"
            write_layout(layout, image.layers, image.config)
            for name in image.names:
                registry.push(layout, *name.split(":"))
            shutil.rmtree(layout)
