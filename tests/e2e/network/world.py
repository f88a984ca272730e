"""Network namespaces to test in: a node with an outside world next to it, and pods.

A namespace is entered by a thread of its own (setns(2) is per thread), never by this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from phantom_cri.network import Attachment
from phantom_cri.network import netlink as nl

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

NODE_IPS = ("192.0.2.10", "2001:db8::10")
OUTSIDE_IPS = ("192.0.2.20", "2001:db8::20")


class Namespace:
    """A new network namespace, alive as long as its descriptor is open."""

    def __init__(self) -> None:
        self.fd = _in_thread(_unshare)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def call(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread inside the namespace; threads and children it starts are inside too."""

        def inside() -> T:
            _check(_libc.setns(self.fd, _CLONE_NEWNET))
            return work()

        return _in_thread(inside)

    def run(self, *command: str) -> str:
        return self.call(lambda: subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def ip(self, words: str) -> str:
        return self.run("ip", *words.split())

    def sysctl(self, key: str, value: str | None = None) -> str:
        def access() -> str:
            path = f"/proc/sys/net/{key}"
            if value is not None:
                with open(path, "w") as file:
                    file.write(value)
            with open(path) as file:
                return file.read().strip()

        return self.call(access)

    def socket(self, kind: socket.SocketKind, address: str) -> socket.socket:
        """A socket of this namespace and the address's family; from then on any thread can use it."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        opened = self.call(lambda: socket.socket(family, kind))
        opened.settimeout(3)
        return opened

    def wire(self, attachment: Attachment) -> None:
        """Do what a fragment does with `pod_batch`: send the messages one by one, check each answer."""

        def send() -> None:
            with contextlib.closing(nl.NetlinkSocket()) as route:
                for request in split(attachment.pod_batch):
                    (answer,) = route.ask([request])
                    assert answer.error == 0, (answer, request.hex())

        self.call(send)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def split(batch: bytes) -> list[bytes]:
    requests, offset = [], 0
    while offset < len(batch):
        length = int.from_bytes(batch[offset : offset + 4], "little")
        requests.append(batch[offset : offset + length + -length % 4])
        offset += length + -length % 4
    return requests


def serve(
    namespace: Namespace, kind: socket.SocketKind, address: str, port: int
) -> contextlib.AbstractContextManager[None]:
    """Answer every TCP connection or datagram with "<own address> <caller's address>"."""
    return _serving(namespace, kind, address, port)


@contextlib.contextmanager
def _serving(namespace: Namespace, kind: socket.SocketKind, address: str, port: int) -> Iterator[None]:
    listener = namespace.socket(kind, address)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.settimeout(None)
    listener.bind((address, port))
    if kind == socket.SOCK_STREAM:
        listener.listen()
    thread = threading.Thread(target=_answer_all, args=(listener, kind), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop(listener, namespace, kind, address, port)
        thread.join()
        listener.close()


def stop(
    listener: socket.socket, namespace: Namespace, kind: socket.SocketKind, address: str, port: int
) -> None:
    if kind == socket.SOCK_STREAM:
        listener.shutdown(socket.SHUT_RDWR)
    else:
        # a thread in recvfrom only wakes up for a datagram
        with namespace.socket(kind, address) as waker:
            waker.sendto(b"stop", (address, port))


def _answer_all(listener: socket.socket, kind: socket.SocketKind) -> None:
    while True:
        if kind == socket.SOCK_STREAM:
            try:
                connection, caller = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(f"{connection.getsockname()[0]} {caller[0]}".encode())
        else:
            request, caller = listener.recvfrom(64)
            if request == b"stop":
                return
            listener.sendto(f"{listener.getsockname()[0]} {caller[0]}".encode(), caller)


def ask(
    namespace: Namespace, kind: socket.SocketKind, address: str, port: int, own_port: int = 0
) -> tuple[str, str]:
    """Call a server; returns (its own address, our address as it sees it). Raises OSError."""
    with namespace.socket(kind, address) as client:
        if own_port:
            client.bind(("::" if ":" in address else "0.0.0.0", own_port))
        client.connect((address, port))
        if kind == socket.SOCK_DGRAM:
            client.send(b"ask")
        server, _, caller = client.recv(256).decode().partition(" ")
        return server, caller


def ping(namespace: Namespace, address: str) -> None:
    """One ICMP echo, without the ping program. Raises OSError when there is no answer."""
    six = ":" in address
    request, reply, protocol = (128, 129, socket.IPPROTO_ICMPV6) if six else (8, 0, socket.IPPROTO_ICMP)
    family = socket.AF_INET6 if six else socket.AF_INET
    # the checksum of an all-zero echo request; the kernel computes ICMPv6's itself
    echo = bytes((request, 0)) + (b"\0\0" if six else b"\xf7\xff") + bytes(4)
    with namespace.call(lambda: socket.socket(family, socket.SOCK_RAW, protocol)) as raw:
        raw.settimeout(3)
        raw.sendto(echo, (address, 0))
        while True:
            packet, sender = raw.recvfrom(256)
            kind = packet[0] if six else packet[(packet[0] & 15) * 4]
            if kind == reply and sender[0] == address:
                return


class World:
    """A node whose eth0 leads to `outside`, where nobody has a route back to any pod."""

    def __init__(self) -> None:
        self.node, self.outside = Namespace(), Namespace()
        self._pods: list[Namespace] = []
        self.node.ip(f"link add eth0 type veth peer name eth0 netns /proc/{os.getpid()}/fd/{self.outside.fd}")
        for namespace, ips, other in (
            (self.node, NODE_IPS, OUTSIDE_IPS),
            (self.outside, OUTSIDE_IPS, NODE_IPS),
        ):
            namespace.ip("link set lo up")
            namespace.ip("link set eth0 up")
            namespace.ip(f"addr add {ips[0]}/24 dev eth0")
            namespace.ip(f"-6 addr add {ips[1]}/64 dev eth0 nodad")
            if namespace is self.node:
                namespace.ip(f"route add default via {other[0]}")
                namespace.ip(f"-6 route add default via {other[1]}")

    def pod(self) -> Namespace:
        pod = Namespace()
        self._pods.append(pod)
        return pod

    def close(self) -> None:
        for namespace in (self.node, self.outside, *self._pods):
            namespace.close()


def _unshare() -> int:
    _check(_libc.unshare(_CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _in_thread(work: Callable[[], T]) -> T:
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome.result()
