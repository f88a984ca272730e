"""Packets with fds over a SOCK_SEQPACKET socket; one event loop callback per packet, no tasks."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from phantom_cri.fragments.descriptors import moved_up

_INT = array.array("i").itemsize
_FDS_MAX = 4  # a fragment sends at most one pidfd; more are received only to be closed


def _by_folder(path: str, act: Callable[[str], None]) -> None:
    """Bind or connect to `path`, which may be longer than the 107 bytes of sun_path (unix(7))."""
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        act(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)


def listening(path: str, backlog: int = 16) -> socket.socket:
    """A new listening socket at `path`, accessible to its owner only. Raises OSError, leaving nothing."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _by_folder(path, made.bind)
        try:
            os.chmod(path, 0o600)
            made.listen(backlog)
        except BaseException:
            os.unlink(path)
            raise
    except BaseException:
        made.close()
        raise
    return made


def connected(path: str) -> socket.socket:
    """A non-blocking socket connected to `path`. Raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        _by_folder(path, made.connect)
    except BaseException:
        made.close()
        raise
    return _moved_up(made)


def _moved_up(made: socket.socket) -> socket.socket:
    fd = moved_up(made.detach())
    try:
        moved = socket.socket(fileno=fd)
    except BaseException:
        os.close(fd)
        raise
    moved.setblocking(False)
    return moved


class Connection:
    """Owns a connected non-blocking socket.

    `on_packet(packet, fds)` removes the fds it keeps from the list; the others are closed.
    `on_lost()` is called once, when the peer has disconnected; not after `close`.
    """

    def __init__(
        self,
        connected: socket.socket,
        packet_size: int,
        on_packet: Callable[[bytes, list[int]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._socket = connected
        self._packet_size = packet_size
        self._on_packet = on_packet
        self._on_lost = on_lost
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connected, self._readable)
        self.is_open = True

    def send(self, packet: bytes, fds: Sequence[int] = ()) -> None:
        """Send now, or as soon as the peer reads; the caller keeps `fds`. Raises OSError."""
        if self._unsent or not self._sent(packet, fds):
            self._unsent.append((packet, [os.dup(fd) for fd in fds]))
            self._loop.add_writer(self._socket, self._writable)

    @property
    def unsent(self) -> int:
        """Packets not sent yet."""
        return len(self._unsent)

    def close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, fds in self._unsent:
            _close_all(fds)
        self._unsent.clear()

    def _sent(self, packet: bytes, fds: Sequence[int]) -> bool:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._socket.sendmsg([packet], ancillary, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        return True

    def _writable(self) -> None:
        try:
            while self._unsent and self._sent(*self._unsent[0]):
                _close_all(self._unsent.popleft()[1])
        except OSError:
            self._lose()
            return
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            packet, ancillary, _, _ = self._socket.recvmsg(
                self._packet_size, socket.CMSG_SPACE(_FDS_MAX * _INT), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            self._lose()
            return
        fds = _received(ancillary) if ancillary else []
        try:
            if packet:
                self._on_packet(packet, fds)
            else:
                self._lose()
        finally:
            _close_all(fds)

    def _lose(self) -> None:
        if self.is_open:
            self.close()
            self._on_lost()


def _received(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % _INT])
    return fds.tolist()


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
