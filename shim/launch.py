"""What the launcher asks (shim/launcher.c): start a shim, clean up after a task, tell what this is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from phantom_cri import codec
from phantom_cri.api.containerd import bootstrap_pb2, info_pb2
from phantom_cri.errors import InvalidArgument, PhantomError
from phantom_cri.fragments.folder import KILLED
from phantom_cri.plans.mount_options import KNOWN as MOUNT_OPTIONS
from shim.node import Node
from shim.records import ProcessRecord
from shim.task_service import deleted
from shim.tasks import Tasks

log = logging.getLogger(__name__)

NAME = "io.containerd.phantom.v2"
LARGEST = 2 << 20
TIMEOUT_S = 10.0
FEATURES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
FEATURES = {
    "ociVersionMin": "1.0.0",
    "ociVersionMax": "1.3.0",
    "hooks": ["createContainer"],
    "mountOptions": MOUNT_OPTIONS,
    "linux": {
        "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
        "mountExtensions": {"idmap": {"enabled": False}},
    },
}
"""What containerd tells its clients of this runtime (OCI runtime spec, features.md)."""

_WITH_VALUE = {"namespace", "address", "publish-binary", "id", "bundle"}


class Asked(NamedTuple):
    """`flags` as in Go: one dash or two. given: what came on stdin."""

    action: str
    flags: dict[str, str]
    events: str
    given: bytes


class LaunchService:
    """Answers each connection of the launcher's socket once."""

    def __init__(self, node: Node, tasks: Tasks) -> None:
        self._node, self._tasks = node, tasks

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = b"\0" + await self._answer(await _all(reader))
        except (Exception, asyncio.CancelledError) as error:
            text = str(error) if isinstance(error, PhantomError) else type(error).__name__
            log.warning("launcher: %s", text)
            answer = b"\1" + f"{text}\n".encode()
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            writer.write(answer)
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        asked = parse(request)
        if "info" in asked.flags:
            return self._info()
        task_id, namespace = asked.flags.get("id", ""), asked.flags.get("namespace", "")
        if not task_id or not namespace:
            raise InvalidArgument("-id, -namespace: both are needed")
        if asked.action == "start":
            return self._start(asked, namespace, task_id)
        if asked.action == "delete":
            ended = await self._tasks.clean_up(namespace, task_id)
            gone = ProcessRecord(exit_code=KILLED, exited_at=time.time_ns())
            return deleted(ended or gone).SerializeToString()
        raise InvalidArgument(f"action {asked.action!r}: want start or delete, or -info")

    def _start(self, asked: Asked, namespace: str, task_id: str) -> bytes:
        """All tasks have one address. From containerd 2.3 on it is told as protobuf."""
        params = _bootstrap(asked.given)
        address = f"unix://{self._node.address}"
        if params is not None and (params.instance_id, params.namespace) == (task_id, namespace):
            events = params.containerd_ttrpc_address or asked.events
            self._tasks.expect(namespace, task_id, events)
            result = bootstrap_pb2.BootstrapResult(version=3, address=address, protocol="ttrpc")
            return result.SerializeToString()
        self._tasks.expect(namespace, task_id, asked.events)
        return codec.to_json({"version": 2, "address": address, "protocol": "ttrpc"})

    def _info(self) -> bytes:
        version = info_pb2.RuntimeVersion(version=self._node.version)
        features = Any(type_url=FEATURES_TYPE, value=codec.to_json(FEATURES))
        return info_pb2.RuntimeInfo(name=NAME, version=version, features=features).SerializeToString()


def parse(request: bytes) -> Asked:
    """Raises InvalidArgument for what no launcher sends."""
    number, _, rest = request.partition(b"\0")
    if not number.isdigit() or len(number) > 6:
        raise InvalidArgument("this is not what the launcher sends")
    *texts, given = rest.split(b"\0", int(number))
    if len(texts) != int(number) or len(texts) < 2:
        raise InvalidArgument("this is not what the launcher sends: it ends too early")
    *arguments, _, events = (text.decode(errors="surrogateescape") for text in texts)
    flags, action = {}, ""
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            action = word
            break
        name, has_value, value = word.lstrip("-").partition("=")
        flags[name] = value if has_value or name not in _WITH_VALUE else _next(words, name)
    return Asked(action, flags, events, given)


def _next(words: Iterator[str], name: str) -> str:
    value = next(words, None)
    if value is None:
        raise InvalidArgument(f"-{name}: it has no value")
    return value


def _bootstrap(given: bytes) -> bootstrap_pb2.BootstrapParams | None:
    try:
        return bootstrap_pb2.BootstrapParams.FromString(given)
    except DecodeError:
        return None


async def _all(reader: asyncio.StreamReader) -> bytes:
    pieces, size = [], 0
    while piece := await reader.read(1 << 16):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise InvalidArgument(f"more than {LARGEST} bytes")
    return b"".join(pieces)
