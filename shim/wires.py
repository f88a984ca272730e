"""containerd's connections, kept beyond this daemon's end: by the fragment of the pod that they are for.

In a pod's folder, wires/NAME stands for a connection, wires/NAME.STREAM holds a request without an answer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Iterator

from phantom_cri.errors import PhantomError
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.rpc.ttrpc import HEAD
from shim.kept import keep

log = logging.getLogger(__name__)

FOLDER = "wires"

LISTENER = "listener"
"""Name of the socket that containerd connects to: every pod's fragment keeps it."""


class Wire:
    """The journal of one connection."""

    def __init__(self, fragment: FragmentHandle, name: str = "") -> None:
        self._fragment = fragment
        self._folder = os.path.join(fragment.folder, FOLDER)
        self._name = name or secrets.token_hex(8)

    def add(self, stream: int, frame: bytes) -> None:
        if self._fragment.alive():  # else its pod has ended, and nobody would go on
            with open(self._path(stream), "wb", buffering=0) as file:
                file.write(frame)

    def done(self, stream: int) -> None:
        with contextlib.suppress(FileNotFoundError):  # it has come as a large one; or its pod has ended
            os.unlink(self._path(stream))

    def keep(self, peer: socket.socket | None) -> None:
        path = os.path.join(self._folder, self._name)
        if peer is None:
            keep(self._fragment, _kept_name(self._name))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        # First: what is kept and has no file would never be looked for.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        keep(self._fragment, _kept_name(self._name), peer.fileno())

    def _path(self, stream: int) -> str:
        return os.path.join(self._folder, f"{self._name}.{stream}")


def _kept_name(name: str) -> str:
    return f"wire.{name}"


async def kept_wires(
    fragment: FragmentHandle,
) -> list[tuple[socket.socket, Wire, dict[int, bytes]]]:
    """What an earlier daemon has left of connections, each with its requests."""
    folder = os.path.join(fragment.folder, FOLDER)
    names = sorted(os.listdir(folder))
    found = []
    for name in names:
        if "." in name:
            continue
        try:
            peer = socket.socket(fileno=await fragment.client.kept(_kept_name(name)))
        except PhantomError as error:
            log.warning("a connection of containerd is lost: %s", error)
            os.unlink(os.path.join(folder, name))
            continue
        requests = dict(_requests(folder, [one for one in names if one.startswith(f"{name}.")]))
        found.append((peer, Wire(fragment, name), requests))
    return found


def _requests(folder: str, names: list[str]) -> Iterator[tuple[int, bytes]]:
    for name in names:
        path = os.path.join(folder, name)
        with open(path, "rb") as file:
            frame = file.read()
        if len(frame) >= HEAD.size and len(frame) == HEAD.size + HEAD.unpack_from(frame)[0]:
            yield int(name.rpartition(".")[2]), frame
        else:  # it was being written: then it is in the socket still
            os.unlink(path)
