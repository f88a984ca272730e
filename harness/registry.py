"""Debian's docker-registry on loopback, on a port chosen by the kernel."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from harness.child import Child

CONFIG = """\
version: 0.1
log:
  level: info
storage:
  filesystem:
    rootdirectory: {storage}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:0
"""
AUTH = """\
auth:
  htpasswd:
    realm: tests
    path: {htpasswd}
"""


class Registry:
    """A registry with all its files below `folder`; `host` is `127.0.0.1:PORT` after its start.

    `htpasswd`: lines of `user:bcrypt-hash`; if set, every request needs basic auth.
    `storage`: folder of images, if not below `folder`. `prefix`: put before each command.
    """

    def __init__(
        self,
        folder: Path,
        htpasswd: str | None = None,
        storage: Path | None = None,
        prefix: Sequence[str] = (),
    ):
        self.folder = folder
        self.htpasswd = htpasswd
        self.prefix = prefix
        self.storage = storage or folder / "storage"
        self.host = ""
        self._child: Child | None = None

    def start(self) -> Registry:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = CONFIG.format(storage=self.storage)
        if self.htpasswd is not None:
            (self.folder / "htpasswd").write_text(self.htpasswd)
            config += AUTH.format(htpasswd=self.folder / "htpasswd")
        (self.folder / "config.yml").write_text(config)
        log = self.folder / "registry.log"
        command = [*self.prefix, "docker-registry", "serve", str(self.folder / "config.yml")]
        self._child = Child(command, log, {"OTEL_TRACES_EXPORTER": "none"})
        self._child.wait_for(self._listening, "the registry to listen")
        return self

    def _listening(self) -> bool:
        """Reads the port from the registry's log, as it was started with port 0."""
        assert self._child is not None
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", self._child.log_text())
        self.host = found[1] if found else ""
        return bool(found)

    def push(self, layout: Path, name: str, tag: str = "latest", credentials: str | None = None) -> str:
        """Copies the OCI layout to `name:tag` by skopeo; returns the reference `host/name:tag`."""
        reference = f"{self.host}/{name}:{tag}"
        command = [*self.prefix, "skopeo", "copy", "--quiet", "--all", "--preserve-digests"]
        command += ["--dest-tls-verify=false"]
        if credentials:
            command += ["--dest-creds", credentials]
        subprocess.run([*command, f"oci:{layout}", f"docker://{reference}"], check=True)
        return reference

    def mirror(self, certs: Path, upstreams: Iterable[str]) -> None:
        """Configures this registry as a mirror of `upstreams` in the hosts.toml files below `certs`."""
        for upstream in upstreams:
            serve_from(self.host, certs, upstream)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()

    def __enter__(self) -> Registry:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve_from(host: str, certs: Path, upstream: str) -> None:
    """Writes the hosts.toml that sends requests for `upstream` to `host`, by plain HTTP."""
    (certs / upstream).mkdir(parents=True, exist_ok=True)
    (certs / upstream / "hosts.toml").write_text(f'server = "http://{host}"\n')
