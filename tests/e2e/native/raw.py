"""A client of the fragment made by hand from protocol.h and ops.def: it shares no line with the daemon's.

What it sends is what the test says, also when that is nonsense.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import select
import signal
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from phantom_cri import native

NATIVE = Path(native.__file__).parent
OPS = {
    name: (int(number), signature)
    for number, name, signature in re.findall(
        r'^OP\(\s*(\d+), (\w+), .*?"(\w*)"', (NATIVE / "ops.def").read_text(), re.MULTILINE
    )
}

HELLO, ADOPT, START, SIGNAL, REOPEN, LIST, GET, FORGET, SHUTDOWN, CLOSE_STDIN, GO = range(1, 12)
ATTACH, SOCKET, KEEP_FD, KEPT_FD = 12, 13, 14, 15
OK, ERROR, ENTRY, EXITED, RESYNC, DETACHED = range(64, 70)
STARTING, RUNNING, ENDED, PREPARED = 1, 2, 3, 4
STAGE_REQUEST, STAGE_DECODE, STAGE_CLONE, STAGE_OP = 1, 2, 3, 4
WARM, CLAIMED, STOPPING = 1, 2, 3
FEATURE_REQUEST, FEATURE_OP, FEATURE_PLAN = 1, 2, 3
CLAIM = ALL = 1
INPUT, STDOUT, STDERR, ONCE = 1, 2, 4, 8
CONTAINER, EXEC = 1, 2
LOG, STDIN, TTY, KILL_REST, HOLD, KEEP, UNREAD = 1, 2, 4, 8, 16, 32, 64
MAGIC = 0x31504850

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET = (
    0x20000,
    0x2000000,
    0x4000000,
    0x8000000,
    0x20000000,
    0x40000000,
)
OWN = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET

OPEN_RECURSIVE, OPEN_CREATE = 1, 2
OVERLAY_VOLATILE, OVERLAY_JOINED, OVERLAY_CLASSIC = 1, 1 << 30, 1 << 31
ATTACH_RECURSIVE, ATTACH_CREATE = 1, 2
ATTRIBUTES_RECURSIVE = 1
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8

MESSAGE = struct.Struct("=IIIIQqqiI168sqqiiII")
HEAD = struct.Struct("=8IQiiii3iI168s")
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

Value = int | str | bytes | Sequence[str]
Op = tuple[object, ...]


def _text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("=II", len(data), 0) + data + b"\0" * (8 - len(data) % 8)


def _field(letter: str, value: object) -> bytes:
    if letter in "ui":
        assert isinstance(value, int)
        return struct.pack("=Q" if letter == "u" else "=q", value)
    if letter in "sb":
        assert isinstance(value, str | bytes)
        return _text(value)
    assert isinstance(value, list | tuple)
    return struct.pack("=II", len(value), 0) + b"".join(_text(item) for item in value)


def encode_op(name: str, *values: object) -> bytes:
    number, signature = OPS[name]
    assert len(values) == len(signature), name
    body = b"".join(_field(letter, value) for letter, value in zip(signature, values, strict=True))
    return struct.pack("=HHI", number, 0, len(body)) + body


@dataclass
class Plan:
    """A plan and the fds that go with it; slots are given out by donate()."""

    ops: list[Op] = field(default_factory=list)
    kind: int = CONTAINER
    flags: int = 0
    clone_flags: int = 0
    fds: list[int] = field(default_factory=list)
    cgroup_slot: int = -1
    log_slot: int = -1
    kill_slot: int = -1
    oom_slot: int = -1
    stdio_slots: tuple[int, int, int] = (-1, -1, -1)
    pid_namespace_of: str = ""

    def donate(self, fd: int) -> int:
        self.fds.append(fd)
        return len(self.fds) - 1

    def encode(self) -> bytes:
        body = b"".join(encode_op(str(op[0]), *op[1:]) for op in self.ops)
        head = HEAD.pack(
            MAGIC,
            HEAD.size + len(body),
            HEAD.size,
            self.kind,
            self.flags,
            len(self.ops),
            len(self.fds),
            0,
            self.clone_flags,
            self.cgroup_slot,
            self.log_slot,
            self.kill_slot,
            self.oom_slot,
            *self.stdio_slots,
            0,
            self.pid_namespace_of.encode(),
        )
        return head + body


def sealed(data: bytes, seals: int = SEALS) -> int:
    memory = os.memfd_create("plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(memory, data)
    if seals:
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    return memory


def message(
    type_: int, serial: int, flags: int = 0, value: int = 0, text_length: int = 0, id: bytes = b""
) -> bytes:
    """struct ph_message, with nothing behind it."""
    return MESSAGE.pack(MESSAGE.size, type_, flags, text_length, serial, value, 0, 0, 0, id, 0, 0, 0, 0, 0, 0)


def resized(packet: bytes, size: int) -> bytes:
    """The packet with another size of its struct ph_message."""
    return struct.pack("=I", size) + packet[4:]


def mutate(plan: Plan, **fields: int) -> bytes:
    """The plan's bytes with fields of struct ph_plan replaced."""
    data = bytearray(plan.encode())
    offsets = {
        "magic": 0,
        "size": 4,
        "head_size": 8,
        "kind": 12,
        "flags": 16,
        "op_count": 20,
        "slot_count": 24,
        "reserved": 28,
        "cgroup": 40,
        "log": 44,
        "kill": 48,
        "oom": 52,
        "stdin": 56,
        "reserved2": 68,
    }
    for name, value in fields.items():
        struct.pack_into("=I", data, offsets[name], value & 0xFFFFFFFF)
    return bytes(data)


@dataclass(frozen=True)
class Exit:
    started_at: int
    finished_at: int
    code: int
    signal: int
    oom: int
    dropped_lines: int


@dataclass(frozen=True)
class Message:
    type: int
    flags: int
    serial: int
    value: int
    value2: int
    error: int
    id: str
    exit: Exit
    text: str
    fds: tuple[int, ...]


class Refused(Exception):
    def __init__(self, message: Message) -> None:
        self.message = message
        self.error, self.stage, self.op = message.error, message.value, message.value2
        super().__init__(f"{os.strerror(self.error)}, stage {self.stage}, op {self.op}: {message.text}")


@dataclass(frozen=True)
class Hello:
    oldest: int
    newest: int
    phase: int
    features: dict[tuple[int, int], int]
    """(kind, number) → flags"""


def read_hello(text: bytes) -> Hello:
    size, oldest, newest, phase = struct.unpack_from("=4I", text)
    features = struct.iter_unpack("=HHI", text[size:])
    return Hello(oldest, newest, phase, {(kind, number): flags for kind, number, flags in features})


class Client:
    """One connection; waits at most `patience` seconds for anything."""

    def __init__(self, path: str, patience: float = 10.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self.socket.settimeout(patience)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self.patience = patience
        self.serial = 0
        self.events: list[Message] = []

    def close(self) -> None:
        self.socket.close()

    def send(
        self,
        type_: int,
        *,
        id: str = "",
        flags: int = 0,
        value: int = 0,
        fds: Sequence[int] = (),
        text_length: int = 0,
    ) -> int:
        self.serial += 1
        data = message(type_, self.serial, flags, value, text_length, id.encode())
        socket.send_fds(self.socket, [data], list(fds))
        return self.serial

    def receive(self) -> Message:
        data, fds, _, _ = socket.recv_fds(self.socket, 4096, 8)
        if not data:
            raise EOFError("the fragment hung up")
        (size, kind, flags, length, serial, value, value2, error, zero, name, *rest) = MESSAGE.unpack_from(
            data
        )
        assert (size, zero) == (MESSAGE.size, 0)
        assert len(data) == MESSAGE.size + length
        text = data[MESSAGE.size :].decode("latin-1")
        return Message(
            kind,
            flags,
            serial,
            value,
            value2,
            error,
            name.rstrip(b"\0").decode(),
            Exit(*rest),
            text,
            tuple(fds),
        )

    def answer(self, serial: int) -> Message:
        while True:
            message = self.receive()
            if message.type == ERROR and message.serial == serial:
                raise Refused(message)
            if message.serial == serial:
                return message
            self.events.append(message)

    def ask(self, type_: int, **fields: object) -> Message:
        return self.answer(self.send(type_, **fields))  # type: ignore[arg-type]

    def hello(self) -> Hello:
        return read_hello(self.ask(HELLO).text.encode("latin-1"))

    def send_plan(self, type_: int, plan: Plan, *, id: str = "", flags: int = 0) -> int:
        memory = sealed(plan.encode())
        try:
            return self.send(type_, id=id, flags=flags, fds=[memory, *plan.fds])
        finally:
            os.close(memory)

    def start(self, id: str, plan: Plan) -> Message:
        return self.answer(self.send_plan(START, plan, id=id))

    def adopt(self, plan: Plan, claim: bool = False) -> Message:
        plan.kind = 0
        return self.answer(self.send_plan(ADOPT, plan, flags=CLAIM if claim else 0))

    def exited(self, id: str) -> Message:
        """Waits for the end of a process."""
        while True:
            for index, event in enumerate(self.events):
                if event.type == EXITED and event.id == id:
                    return self.events.pop(index)
            self.events.append(self.receive())

    def list(self) -> dict[str, Message]:
        serial = self.send(LIST)
        entries = {}
        while (message := self.answer(serial)).type == ENTRY:
            entries[message.id] = message
        assert message.type == OK
        assert message.value == len(entries)
        return entries


class Fragment:
    """A running fragment and a connection to it that has said HELLO."""

    def __init__(self, directory: Path, clone_flags: int = OWN, cgroup_fd: int = -1) -> None:
        self.directory = directory
        self.clone_flags = clone_flags
        self.path = str(directory / "socket")
        state = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.stderr = open(directory / "stderr", "wb")  # noqa: SIM115
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(self.path)
            listener.listen(8)
            try:
                self.pid, self.pidfd = native.spawn(
                    native.fragment_binary(),
                    "fragment test",
                    clone_flags,
                    listener.fileno(),
                    state,
                    cgroup_fd,
                    self.stderr.fileno(),
                )
            except OSError:
                self.stderr.close()
                raise
            finally:
                os.close(state)
        self.clients: list[Client] = []
        try:
            self.client = self.connect()
            self.client.hello()
        except OSError:
            self.close()
            raise

    def connect(self) -> Client:
        client = Client(self.path)
        self.clients.append(client)
        return client

    def wait(self, seconds: float = 10.0) -> int:
        """The exit status of the fragment: its code, or minus the signal."""
        waiting = select.poll()
        waiting.register(self.pidfd, select.POLLIN)
        if not waiting.poll(seconds * 1000):
            raise TimeoutError("the fragment does not end")
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        assert result is not None
        self.pid = -1
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def kill(self) -> None:
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        if self.pid != -1:
            self.kill()
            self.wait()
        for client in self.clients:
            client.close()
        os.close(self.pidfd)
        self.stderr.close()


def eventually(condition: object, seconds: float = 10.0) -> None:
    """Waits until `condition()` is true."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {condition}")
        time.sleep(0.005)


def host_mounts() -> int:
    return os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


LIBC = ctypes.CDLL(None, use_errno=True)
