"""Exec, attach and port-forward: what was offered is opened, used and closed, as by the streaming server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from phantom_cri.concurrency import to_the_end
from phantom_cri.errors import Unavailable
from phantom_cri.lifecycle.streams.client_pipes import ClientPipes
from phantom_cri.model import Streams
from phantom_cri.streaming.pending import PendingForward, PendingStdio
from tests.e2e.faults.bed import Bed
from tests.e2e.faults.scenarios import ExecSync, InContainer, Scenario

ALL_STREAMS = Streams(stdin=True, stdout=True, stderr=True)


class Said(NamedTuple):
    stdout: bytes
    stderr: bytes
    code: int


async def stdio_session(bed: Bed, url: str) -> Any:
    pending = bed.runtime.streams._pending.take(urlsplit(url).path)
    assert isinstance(pending, PendingStdio)
    return await pending.open_session()


async def readable(fd: int) -> None:
    """Not to be had by reading: the session's descriptors do not block."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, told.cancel)
    try:
        await asyncio.wait([told])
    finally:
        loop.remove_reader(fd)


async def up_to(words: bytes, fd: int) -> bytes:
    found = b""
    while words not in found:
        await readable(fd)
        found += os.read(fd, 4096)
    return found


def rest_of(fd: int) -> bytes:
    """What is left in a pipe or a terminal whose other end is closed."""
    found = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the terminal any more
        while fd >= 0 and (piece := os.read(fd, 4096)):
            found += piece
    return found


class Exec(InContainer):
    """A client that writes a line, ends its input and reads all that comes."""

    variant_of: ClassVar[type[Scenario] | None] = ExecSync

    streams = ALL_STREAMS
    script = "cat; echo err >&2; exit 3"
    said = Said(b"in\n", b"err\n", 3)

    async def act(self, thing: tuple[str, str]) -> Said:
        url = await self.bed.verbs.exec(thing[1], ["sh", "-c", self.script], self.streams)
        session = await stdio_session(self.bed, url)
        try:
            self.use(session)
            code = await session.wait()
            return Said(rest_of(session.stdout), rest_of(session.stderr), code)
        finally:
            await to_the_end(session.close())

    def use(self, session: ClientPipes) -> None:
        os.write(session.stdin, b"in\n")
        session.end_input()  # type: ignore[attr-defined]

    async def finish(self, thing: tuple[str, str], result: Said) -> None:
        assert result == self.said
        await super().finish(thing, result)


class ExecTerminal(Exec):
    variant_of = Exec
    streams = Streams(tty=True, stdin=True, stdout=True)
    script = "read line; stty size; exit 3"
    said = Said(b"in\r\n24 80\r\n", b"", 3)

    def use(self, session: ClientPipes) -> None:
        session.resize(80, 24)
        os.write(session.stdin, b"in\n")


class Attach(Scenario):
    """A client that hears what it said, and leaves: the container goes on."""

    fields: dict[str, Any] = {"stdin": True}
    script = "while read line; do echo got $line; done"
    answer = b"got in\n"

    async def prepare(self) -> list[str]:
        pod = await self.bed.run_pod()
        config = self.bed.container(self.script, **self.fields)
        container = await self.bed.verbs.create_container(pod, config, None)
        await self.start(container)
        return [pod, container]

    async def start(self, container: str) -> None:
        await self.bed.verbs.start_container(container)

    async def act(self, thing: list[str]) -> bytes:
        session = await stdio_session(self.bed, await self.bed.verbs.attach(thing[1], ALL_STREAMS))
        try:
            return await self.use(thing, session)
        finally:
            await to_the_end(session.close())

    async def use(self, thing: list[str], session: Any) -> bytes:
        os.write(session.stdin, b"in\n")
        line = await up_to(self.answer, session.stdout)
        session.end_input()
        await session.wait()
        return line

    async def finish(self, thing: list[str], result: bytes) -> None:
        assert result.endswith(self.answer), result
        assert (await self.bed.verbs.container_status(thing[1])).state == "running"
        await self.bed.verbs.remove_pod_sandbox(thing[0])


class AttachTerminal(Attach):
    variant_of = Attach
    fields = {"stdin": True, "tty": True}
    script = "stty -echo; while read line; do echo got $line; done"
    answer = b"got in\r\n"


class AttachBeforeStart(Attach):
    """Such a client misses nothing, not even the first word."""

    variant_of = Attach

    async def start(self, container: str) -> None:
        await self.bed.prepared(container)

    async def use(self, thing: list[str], session: Any) -> bytes:
        return b"opened"

    answer = b"opened"

    async def finish(self, thing: list[str], result: bytes) -> None:
        await self.bed.verbs.start_container(thing[1])
        await super().finish(thing, result)


class PortForward(Scenario):
    """A connection to a server in the pod, which answers."""

    async def prepare(self) -> str:
        pod = await self.bed.run_pod()
        await self.bed.run_container(pod, "httpd -f -p 80")
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(Unavailable):
                    await self.act(pod)
                    return pod
                await asyncio.sleep(0.002)

    async def act(self, thing: str) -> bytes:
        url = await self.bed.verbs.port_forward(thing, [80])
        pending = self.bed.runtime.streams._pending.take(urlsplit(url).path)
        assert isinstance(pending, PendingForward)
        with socket.socket(fileno=await pending.dial(80)) as connection:
            os.write(connection.fileno(), b"GET /none HTTP/1.0\r\n\r\n")
            await readable(connection.fileno())
            return os.read(connection.fileno(), 12)

    async def finish(self, thing: str, result: bytes) -> None:
        assert result == b"HTTP/1.1 404", result
        await self.bed.verbs.remove_pod_sandbox(thing)
