"""Clients of a container's output and input, and sockets in the pod's network."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess

import pytest

from tests.e2e.native import raw
from tests.e2e.native.bed import Bed, start
from tests.e2e.native.raw import Fragment, Plan, Refused, eventually
from tests.e2e.native.test_console import on_terminal

pytestmark = pytest.mark.root


def fd_count(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


class Client:
    """The reading ends of an attached client's pipes and the console it was given."""

    def __init__(self, fragment: Fragment, id: str, flags: int = raw.STDOUT | raw.STDERR) -> None:
        self.client = fragment.client
        self.ends = [os.pipe2(os.O_CLOEXEC) for flag in (raw.STDOUT, raw.STDERR) if flags & flag]
        self.serial = self.client.send(
            raw.ATTACH, id=id, flags=flags, fds=[writer for _, writer in self.ends]
        )
        for _, writer in self.ends:
            os.close(writer)
        self.readers = [reader for reader, _ in self.ends]
        self.fds = self.client.answer(self.serial).fds

    def reads(self, wanted: bytes, stream: int = 0) -> None:
        found = b""
        while len(found) < len(wanted):
            assert select.select([self.readers[stream]], [], [], 10)[0], found
            piece = os.read(self.readers[stream], len(wanted) - len(found))
            assert piece, f"the end after {found!r}"
            found += piece
        assert found == wanted

    def rest(self, stream: int = 0) -> bytes:
        with open(self.readers[stream], "rb", closefd=False) as reader:
            return reader.read()

    def detached(self) -> int:
        """Waits for it to be told; its error."""
        for index, event in enumerate(self.client.events):
            if event.type == raw.DETACHED and event.serial == self.serial:
                return self.client.events.pop(index).error
        while (message := self.client.receive()).type != raw.DETACHED or message.serial != self.serial:
            self.client.events.append(message)
        return message.error

    def close(self) -> None:
        for fd in (*self.readers, *self.fds):
            os.close(fd)


def with_input(plan: Plan) -> Plan:
    plan.flags |= raw.STDIN
    return plan


def test_output_goes_to_log_and_clients_alike(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", with_input(bed.shell("while read x; do echo out $x; echo err $x >&2; done")))
    first = Client(fragment, "c", raw.INPUT | raw.STDOUT | raw.STDERR)
    os.write(first.fds[0], b"1\n")
    first.reads(b"out 1\n")
    first.reads(b"err 1\n", 1)
    second = Client(fragment, "c", raw.STDERR)
    os.write(first.fds[0], b"2\n")
    first.reads(b"out 2\n")
    first.reads(b"err 2\n", 1)
    second.reads(b"err 2\n")
    fragment.client.ask(raw.CLOSE_STDIN, id="c")
    first.close()  # the last writing end of its input
    assert fragment.client.exited("c").exit.code == 0
    assert second.rest() == b""
    assert second.detached() == 0
    assert sorted(bed.log_lines()) == sorted(
        (name, "F", f"{name[3:]} {n}") for name in ("stdout", "stderr") for n in (1, 2)
    )
    second.close()


def test_input_once_ends_with_its_first_client(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", with_input(bed.container(["/bin/cat"])))
    owner = Client(fragment, "c", raw.INPUT | raw.ONCE | raw.STDOUT)
    late = Client(fragment, "c", raw.INPUT | raw.ONCE | raw.STDOUT)
    assert (len(owner.fds), len(late.fds)) == (1, 0)
    os.write(owner.fds[0], b"words\n")
    late.reads(b"words\n")
    owner.close()
    assert fragment.client.exited("c").exit.code == 0
    assert late.rest() == b""
    late.close()
    assert bed.output() == "words\n"


def test_a_terminal_is_for_all_who_attach(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", on_terminal(bed, "stty -echo; echo ready; read x; echo got $x; read y"))
    eventually(lambda: bed.output() == "ready\n")
    clients = [Client(fragment, "c", raw.INPUT | raw.ONCE | raw.STDOUT | raw.STDERR) for _ in range(2)]
    os.write(clients[1].fds[0], b"words\n")
    for client in clients:
        client.reads(b"got words\r\n")
        assert client.rest(1) == b"", "a terminal has no stderr"
    os.write(clients[0].fds[0], b"end\n")
    assert fragment.client.exited("c").exit.code == 0
    assert [client.rest() for client in clients] == [b"", b""]
    for client in clients:
        client.close()


def test_who_does_not_read_holds_nobody_up(bed: Bed, fragment: Fragment) -> None:
    count = 1 << 20
    start(fragment, "c", with_input(bed.shell(f"read x; head -c {count} /dev/zero; read x; echo done")))
    slow, console = Client(fragment, "c"), Client(fragment, "c", raw.INPUT)
    os.write(console.fds[0], b"go\n")
    assert slow.detached() == errno.ENOBUFS
    eventually(lambda: sum(len(text) for _, _, text in bed.log_lines()) >= count - 16384)
    late = Client(fragment, "c", raw.STDOUT)
    os.write(console.fds[0], b"go\n")
    assert fragment.client.exited("c").exit.code == 0
    assert late.rest() == b"done\n"
    rest = slow.rest()
    assert rest == bytes(len(rest)), "what its pipe had room for, and then the end"
    assert 32768 < len(rest) <= 65536
    assert sum(len(text) for _, _, text in bed.log_lines()) == count + len("done")
    for client in (slow, console, late):
        client.close()


def test_a_client_that_vanishes_leaves_nothing(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.container(["/bin/sleep", "1000"]))
    fds = fd_count(fragment.pid)
    connection = fragment.connect()
    ends = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
    writers = [writer for _, writer in ends]
    connection.answer(connection.send(raw.ATTACH, id="c", flags=raw.STDOUT | raw.STDERR, fds=writers))
    connection.close()
    for fd in (fd for pair in ends for fd in pair):
        os.close(fd)
    eventually(lambda: fd_count(fragment.pid) == fds)
    client = Client(fragment, "c")
    assert fd_count(fragment.pid) == fds + 2
    client.close()
    eventually(lambda: fd_count(fragment.pid) == fds)


def refused(fragment: Fragment, id: str, flags: int, pipes: int) -> int:
    ends = [os.pipe2(os.O_CLOEXEC) for _ in range(pipes)]
    try:
        with pytest.raises(Refused) as error:
            fragment.client.ask(raw.ATTACH, id=id, flags=flags, fds=[writer for _, writer in ends])
    finally:
        for fd in (fd for pair in ends for fd in pair):
            os.close(fd)
    return error.value.error


def test_what_is_refused(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.container(["/bin/sleep", "1000"]))
    bed.run(fragment, bed.shell("true"), id="gone")
    fds = fd_count(fragment.pid)
    assert refused(fragment, "none", raw.STDOUT, 1) == errno.ENOENT
    assert refused(fragment, "gone", raw.STDOUT, 1) == errno.ENOENT
    assert refused(fragment, "c", raw.STDOUT, 0) == errno.EINVAL
    assert refused(fragment, "c", raw.STDOUT, 2) == errno.EINVAL
    assert refused(fragment, "c", 16 | raw.STDOUT, 1) == errno.ENOSYS
    clients = [Client(fragment, "c", raw.STDOUT) for _ in range(16)]
    assert refused(fragment, "c", raw.STDOUT, 1) == errno.EAGAIN
    for client in clients:
        client.close()
    eventually(lambda: fd_count(fragment.pid) == fds)


def test_an_exited_container_is_not_attached_to(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.shell("exit 3"))
    fragment.client.exited("c")
    assert refused(fragment, "c", raw.STDOUT, 1) == errno.ESRCH


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_socket_is_the_pods(bed: Bed, fragment: Fragment, family: int, host: str) -> None:
    """Its network namespace has loopback down: nothing can be reached there, whoever listens outside."""
    with socket.create_server((host, 0), family=family) as server:
        (fd,) = fragment.client.ask(raw.SOCKET, value=family).fds
        with socket.socket(fileno=fd) as made:
            assert not os.get_blocking(fd)
            assert made.connect_ex(server.getsockname()) in (errno.ENETUNREACH, errno.EADDRNOTAVAIL)
    subprocess.run(
        ["nsenter", f"--net=/proc/{fragment.pid}/ns/net", "ip", "link", "set", "lo", "up"], check=True
    )
    (fd,) = fragment.client.ask(raw.SOCKET, value=family).fds
    with socket.socket(fileno=fd) as made:
        assert made.connect_ex((host, 9)) in (errno.ECONNREFUSED, errno.EINPROGRESS)


def test_sockets_of_other_families_are_refused(fragment: Fragment) -> None:
    for family in (0, socket.AF_UNIX, socket.AF_NETLINK, -1, 1 << 40):
        with pytest.raises(Refused) as error:
            fragment.client.ask(raw.SOCKET, value=family)
        assert error.value.error == errno.EAFNOSUPPORT


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
def test_who_attaches_to_a_prepared_process_misses_nothing(bed: Bed, fragment: Fragment, tty: bool) -> None:
    command = "echo first; read x; echo got $x"
    plan = on_terminal(bed, f"stty -echo; {command}") if tty else with_input(bed.shell(command))
    plan.flags |= raw.HOLD
    for fd in fragment.client.start("c", plan).fds:
        os.close(fd)
    client = Client(fragment, "c", raw.INPUT | raw.STDOUT)
    os.write(client.fds[0], b"it\n")
    for fd in fragment.client.ask(raw.GO, id="c").fds:
        os.close(fd)
    newline = b"\r\n" if tty else b"\n"
    assert fragment.client.exited("c").exit.code == 0
    text = client.rest()
    assert text.endswith(b"first" + newline + b"got it" + newline)
    client.close()


def test_who_is_attached_when_a_prepared_process_is_forgotten_is_told(bed: Bed, fragment: Fragment) -> None:
    plan = with_input(bed.shell("echo never"))
    plan.flags |= raw.HOLD
    for fd in fragment.client.start("c", plan).fds:
        os.close(fd)
    client = Client(fragment, "c", raw.INPUT | raw.STDOUT)
    before = fd_count(fragment.pid)
    fragment.client.ask(raw.FORGET, id="c")
    assert client.detached() == 0
    assert client.rest() == b""
    assert fd_count(fragment.pid) < before
    client.close()
