"""A gRPC server on a Unix socket."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from phantom_cri.errors import AlreadyExists, ConfigError, FailedPrecondition
from phantom_cri.rpc.calls import Calls

MESSAGE_LIMIT = 40 << 20
"""Bytes. The kubelet accepts up to 16 MiB; an ExecSync answer may have that much stdout and stderr each."""

SOCKET_MODE = 0o660
FOLDER_MODE = 0o711

# sun_path of unix(7) is 108 bytes with its final NUL.
_LONGEST_PATH = 107


def _is_no_goodbye(record: logging.LogRecord) -> bool:
    """Drops grpcio's traceback for an answer that cannot be sent: each disconnected client causes one."""
    return not record.getMessage().startswith("ExecuteBatchError")


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_goodbye)


class Server:
    """Services on one socket: each a descriptor and an object with a method per RPC, as in `Calls`.

    `async with Server(…)` listens; leaving it refuses new calls, lets running ones end within `grace_s`
    seconds, cancels the rest and removes the socket.
    """

    def __init__(
        self,
        path: Path | str,
        services: Sequence[tuple[ServiceDescriptor, object]],
        calls: Calls,
        *,
        grace_s: float = 10,
    ) -> None:
        self.path = Path(path)
        self._grace_s = grace_s
        self._inode: tuple[int, int] | None = None
        self._handlers = [calls.handler(descriptor, servicer) for descriptor, servicer in services]
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises AlreadyExists if another daemon answers there, ConfigError for a bad path."""
        await asyncio.to_thread(make_way, self.path)
        options = [
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
            ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers(self._handlers)
        self._bind(server)
        self._server = server
        await server.start()

    def _bind(self, server: grpc.aio.Server) -> None:
        """Bind under another name and rename.

        At its end grpc removes the path that it bound, even if it is another server's socket by then; and
        no client can connect before the mode is set.
        """
        bound = _bound_path(self.path)
        mask = os.umask(0o777 & ~SOCKET_MODE)
        try:
            server.add_insecure_port(f"unix:{bound}")
        except RuntimeError as error:
            raise ConfigError(f"listen: cannot bind {bound}: {error}") from error
        finally:
            os.umask(mask)
        try:
            bound.chmod(SOCKET_MODE)
            self._inode = _inode(bound)
            bound.rename(self.path)
        except OSError as error:
            bound.unlink(missing_ok=True)
            raise ConfigError(f"listen: {self.path}: {error.strerror}") from error

    async def stop(self) -> None:
        """Idempotent. Does not remove a later daemon's socket."""
        server, self._server = self._server, None
        if server is None:
            return
        # First, so that no new client connects, and before the inode number can be reused.
        if _inode(self.path) == self._inode:
            self.path.unlink(missing_ok=True)
        await server.stop(self._grace_s)

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def make_way(path: Path) -> None:
    """Create the folder of a socket and remove a stale socket; blocks for up to a second."""
    if len(os.fsencode(_bound_path(path))) > _LONGEST_PATH:
        raise ConfigError(f"listen: {path} is too long for a socket (unix(7))")
    _make_folder(path.parent)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FailedPrecondition(f"listen: {path} exists and is not a socket")
    if _answers(path):
        raise AlreadyExists(f"listen: another daemon answers at {path}")
    path.unlink(missing_ok=True)


def _bound_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _make_folder(folder: Path) -> None:
    """A new folder can be traversed by others, not read; an existing one is not changed."""
    try:
        folder.mkdir(parents=True, exist_ok=False)
    except FileExistsError:
        return
    folder.chmod(FOLDER_MODE)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except TimeoutError:  # its queue is full: another process listens
            return True
    return True


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
