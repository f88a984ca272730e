"""The socket: phases, lists, lost daemons, slow readers, and nonsense."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import struct

import pytest

from tests.e2e.native import raw
from tests.e2e.native.bed import Bed, children_of, fds_of, open_gate, start
from tests.e2e.native.raw import Client, Fragment, Plan, Refused, eventually, sealed

pytestmark = pytest.mark.root


def test_a_fragment_is_claimed_once(fragment: Fragment) -> None:
    fragment.client.ask(raw.ADOPT, flags=raw.CLAIM)
    with pytest.raises(Refused) as refused:
        fragment.client.ask(raw.ADOPT, flags=raw.CLAIM)
    assert refused.value.error == errno.EBUSY
    fragment.client.adopt(Plan(ops=[("HOSTNAME", "later")]))


def test_a_claim_that_fails_is_none(fragment: Fragment) -> None:
    with pytest.raises(Refused) as refused:
        fragment.client.adopt(Plan(ops=[("UMASK", 0), ("HOSTNAME", "x" * 65)]), claim=True)
    assert (refused.value.stage, refused.value.op) == (raw.STAGE_OP, 1)
    assert fragment.client.hello().phase == raw.WARM


def test_list_and_get(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "alive", bed.container(["/bin/sleep", "1000"]))
    start(fragment, "dead", bed.shell("exit 5"))
    fragment.client.exited("dead")
    entries = fragment.client.list()
    assert {id: entry.value for id, entry in entries.items()} == {"alive": raw.RUNNING, "dead": raw.ENDED}
    assert entries["dead"].exit.code == 5
    assert entries["alive"].exit.finished_at == 0
    assert fragment.client.ask(raw.GET, id="dead").fds == ()
    with pytest.raises(Refused) as refused:
        fragment.client.ask(raw.GET, id="nobody")
    assert refused.value.error == errno.ENOENT


def test_forget(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.container(["/bin/sleep", "1000"]))
    with pytest.raises(Refused) as refused:
        fragment.client.ask(raw.FORGET, id="c")
    assert refused.value.error == errno.EBUSY
    assert fragment.client.ask(raw.FORGET, id="nobody").type == raw.OK
    fragment.client.ask(raw.SIGNAL, id="c", value=9)
    fragment.client.exited("c")
    fragment.client.ask(raw.FORGET, id="c")
    assert fragment.client.list() == {}


def test_the_daemon_goes_and_comes_back(bed: Bed, fragment: Fragment) -> None:
    pid = start(fragment, "c", bed.shell("read x < /dev/gate; echo $x; exit 12"))
    fragment.client.close()
    open_gate(pid)
    eventually((fragment.directory / "exits/c").exists)
    client = fragment.connect()
    assert client.hello().newest == 1
    assert client.list()["c"].exit.code == 12
    assert bed.output() == "go\n"


def test_everybody_who_said_hello_hears_of_exits(bed: Bed, fragment: Fragment) -> None:
    second, deaf = fragment.connect(), fragment.connect()
    second.hello()
    start(fragment, "c", bed.container(["/bin/true"]))
    assert fragment.client.exited("c").serial == 0
    second.exited("c")
    deaf.ask(raw.GET, id="c")
    assert deaf.events == []


def test_the_ninth_connection_is_hung_up_on(fragment: Fragment) -> None:
    others = [fragment.connect() for _ in range(7)]
    for client in others:
        client.hello()
    with pytest.raises((EOFError, ConnectionError)):
        fragment.connect().hello()
    others[0].close()
    eventually(lambda: can_say_hello(fragment))


def can_say_hello(fragment: Fragment) -> bool:
    client = fragment.connect()
    try:
        return client.hello().newest == 1
    except (EOFError, ConnectionError):
        return False
    finally:
        client.close()


def test_a_slow_reader_is_told_to_resync(bed: Bed, fragment: Fragment) -> None:
    slow = fragment.connect()
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    slow.hello()
    for _ in range(400):
        bed.run(fragment, bed.exec_true())
    slow.send(raw.LIST)
    seen = []
    slow.socket.settimeout(2)
    while raw.RESYNC not in seen:
        seen.append(slow.receive().type)
    assert seen.count(raw.EXITED) < 400
    assert slow.list() == {}
    assert fragment.client.hello().newest == 1


def test_a_reader_who_never_reads_answers_is_hung_up_on(fragment: Fragment) -> None:
    greedy = fragment.connect()
    with pytest.raises((ConnectionError, EOFError, TimeoutError)):
        for _ in range(100000):
            greedy.send(raw.HELLO)
    assert fragment.client.hello().newest == 1


def test_a_long_list_arrives_whole(bed: Bed, fragment: Fragment) -> None:
    for number in range(300):
        start(fragment, f"c{number}", bed.container(["/bin/true"]))
        fragment.client.exited(f"c{number}")
    serial = fragment.client.send(raw.LIST)
    eventually(lambda: fragment.connect().hello().newest == 1)
    count = 0
    while fragment.client.answer(serial).type == raw.ENTRY:
        count += 1
    assert count == 300


HELLO = raw.message(raw.HELLO, 1)

BAD_PACKETS = {
    "short": b"x",
    "one byte short": HELLO[:-1],
    "text that is not there": raw.message(raw.HELLO, 1, text_length=9),
    "text that was not announced": HELLO + b"x",
    "text length that wraps": raw.message(raw.HELLO, 1, text_length=0xFFFFFFFF),
    "too long": raw.message(raw.HELLO, 1, text_length=4096) + b"x" * 4096,
    "a struct of no bytes": raw.resized(HELLO, 0),
    "a struct shorter than version 1's": raw.resized(HELLO, raw.MESSAGE.size - 8),
    "a struct longer than the packet": raw.resized(HELLO, raw.MESSAGE.size + 8),
    "a struct longer than any packet": raw.resized(HELLO, 0xFFFFFFFF),
}


@pytest.mark.parametrize("packet", BAD_PACKETS.values(), ids=BAD_PACKETS.keys())
def test_malformed_packets_are_hung_up_on(fragment: Fragment, packet: bytes) -> None:
    fds = fds_of(fragment.pid)
    client = fragment.connect()
    null = os.open("/dev/null", os.O_RDONLY)
    socket.send_fds(client.socket, [packet], [null] * 20)
    os.close(null)
    with pytest.raises((EOFError, ConnectionError)):
        client.receive()
    eventually(lambda: fds_of(fragment.pid) == fds)
    assert fragment.client.hello().newest == 1


def test_unknown_requests_are_enosys(fragment: Fragment) -> None:
    for type_ in (0, 40, 63, 64, 1 << 31):
        with pytest.raises(Refused) as refused:
            fragment.client.ask(type_)
        assert refused.value.error == errno.ENOSYS


def test_fds_that_nobody_asked_for_are_closed(fragment: Fragment) -> None:
    fds = fds_of(fragment.pid)
    null = os.open("/dev/null", os.O_RDONLY)
    for type_ in (raw.HELLO, raw.LIST, raw.GET, 99):
        try:
            fragment.client.ask(type_, fds=[null] * 253)
        except Refused:
            pass
        except (EOFError, ConnectionError):
            fragment.client = fragment.connect()
    os.close(null)
    fragment.client.close()
    eventually(lambda: len(fds_of(fragment.pid)) <= len(fds))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"magic": 1}, errno.EINVAL),
        ({"size": 1}, errno.EINVAL),
        ({"head_size": 0}, errno.EINVAL),
        ({"head_size": raw.HEAD.size - 8}, errno.EINVAL),
        ({"head_size": raw.HEAD.size + 4}, errno.EINVAL),
        ({"head_size": 0xFFFFFFF8}, errno.EINVAL),
        ({"kind": 3}, errno.ENOSYS),
        ({"kind": 0}, errno.EINVAL),
        ({"kind": 0xFFFFFFFF}, errno.ENOSYS),
        ({"flags": 1 << 31}, errno.ENOSYS),
        ({"op_count": 3}, errno.EINVAL),
        ({"op_count": 0xFFFFFFFF}, errno.EINVAL),
        ({"op_count": 0}, errno.EINVAL),
        ({"slot_count": 1}, errno.EINVAL),
        ({"slot_count": 200}, errno.EINVAL),
        ({"cgroup": 2}, errno.EINVAL),
        ({"log": 2}, errno.EINVAL),
        ({"kill": -2}, errno.EINVAL),
        ({"oom": 0x7FFFFFFF}, errno.EINVAL),
        ({"stdin": 2}, errno.EINVAL),
        ({"reserved": 1}, errno.ENOSYS),
        ({"reserved2": 1}, errno.ENOSYS),
    ],
)
def test_malformed_plans_are_refused(
    bed: Bed, fragment: Fragment, fields: dict[str, int], error: int
) -> None:
    plan = bed.container(["/bin/true"])
    fds = fds_of(fragment.pid)
    memory = sealed(raw.mutate(plan, **fields))
    with pytest.raises(Refused) as refused:
        fragment.client.ask(raw.START, id="c", fds=[memory, *plan.fds])
    os.close(memory)
    assert (refused.value.error, refused.value.stage) == (error, raw.STAGE_DECODE)
    eventually(lambda: fds_of(fragment.pid) == fds)
    assert children_of(fragment.pid) == []


@pytest.mark.parametrize(
    ("ops", "error", "index"),
    [
        ([("HOSTNAME", "x")], errno.EINVAL, -1),
        ([("EXEC", "/x", ["x"], []), ("UMASK", 0)], errno.EINVAL, 1),
        ([("EXEC", "/x", [], [])], errno.EINVAL, 0),
        ([("ROOT", 300)], errno.EINVAL, 0),
        ([("ROOT", 1024)], errno.EINVAL, 0),
        ([("OPEN_TREE", 2, "/", 0), ("OPEN_TREE", 2, "/", 0)], errno.EINVAL, 1),
        ([("OPEN_TREE", 0, "/", 0)], errno.EINVAL, 0),
        ([("OPEN_TREE", 2, "/", 0), ("ROOT", 2), ("ATTACH", 2, "/", 0, 0, 0)], errno.EINVAL, 2),
        ([("HOSTNAME", "a\0b")], errno.EINVAL, 0),
        ([("NO_NEW_PRIVS",), ("UMASK", 0), ("JOIN_NS", 0, 0)], errno.EINVAL, 2),
        ([("CHDIR", "/"), ("PIVOT",)], errno.EINVAL, 1),
        ([("IDS", 0, 0, b"xyz")], errno.EINVAL, 0),
        ([("SECCOMP", b"1234567", 0)], errno.EINVAL, 0),
    ],
)
def test_plans_that_make_no_sense_are_refused(
    bed: Bed, fragment: Fragment, ops: list[raw.Op], error: int, index: int
) -> None:
    plan = bed.container(["/bin/true"])
    plan.ops = ops
    with pytest.raises(Refused) as refused:
        start(fragment, "c", plan)
    found = refused.value
    assert (found.error, found.stage, found.op) == (error, raw.STAGE_DECODE, index)


def test_unknown_ops_are_enosys(bed: Bed, fragment: Fragment) -> None:
    plan = bed.container(["/bin/true"])
    data = bytearray(plan.encode())
    struct.pack_into("=H", data, raw.HEAD.size, 127)
    memory = sealed(bytes(data))
    with pytest.raises(Refused) as refused:
        fragment.client.ask(raw.START, id="c", fds=[memory, *plan.fds])
    os.close(memory)
    found = refused.value
    assert (found.error, found.stage, found.op) == (errno.ENOSYS, raw.STAGE_DECODE, 0)


@pytest.mark.parametrize("name", ["EXEC", "PIVOT", "OVERLAY", "UNSHARE", "SECCOMP", "IDS"])
def test_what_the_fragment_may_not_do_to_itself(fragment: Fragment, name: str) -> None:
    values = {
        "EXEC": ("/x", ["x"], []),
        "OVERLAY": (1, ["/"], "", "", 0),
        "UNSHARE": (0,),
        "SECCOMP": (b"", 0),
        "IDS": (0, 0, b""),
        "PIVOT": (),
    }[name]
    with pytest.raises(Refused) as refused:
        fragment.client.adopt(Plan(ops=[(name, *values)]))
    assert (refused.value.error, refused.value.stage) == (errno.EINVAL, raw.STAGE_DECODE)


def test_a_plan_that_could_still_change_is_refused(bed: Bed, fragment: Fragment) -> None:
    plan = bed.container(["/bin/true"])
    pipe_in, pipe_out = os.pipe()
    loose = [sealed(plan.encode(), seals) for seals in (0, 0x2 | 0x4 | 0x8, 0x1 | 0x2 | 0x4)]
    for fd in [*loose, pipe_in]:
        with pytest.raises(Refused) as refused:
            fragment.client.ask(raw.START, id="c", fds=[fd, *plan.fds])
        assert (refused.value.error, refused.value.stage) == (errno.EINVAL, raw.STAGE_REQUEST)
    for fd in [*loose, pipe_in, pipe_out]:
        os.close(fd)


def test_no_plan_at_all(fragment: Fragment) -> None:
    with pytest.raises(Refused) as refused:
        fragment.client.ask(raw.START, id="c")
    assert refused.value.error == errno.EINVAL


def test_random_damage_never_ends_the_fragment(bed: Bed, fragment: Fragment) -> None:
    source = random.Random(1)
    client = fragment.connect()
    plan = bed.container(["/bin/true"])
    for _ in range(400):
        data = bytearray(plan.encode())
        for _ in range(source.randint(1, 4)):
            data[source.randrange(len(data))] = source.randrange(256)
        memory = sealed(bytes(data))
        try:
            for fd in client.ask(raw.START, id="c", fds=[memory, *plan.fds]).fds:
                os.close(fd)
            client.ask(raw.SIGNAL, id="c", value=signal.SIGKILL)
        except Refused:
            pass
        os.close(memory)
        eventually(lambda: forgotten(client))
    assert fragment.client.hello().newest == 1


def forgotten(client: Client) -> bool:
    try:
        return client.ask(raw.FORGET, id="c").type == raw.OK
    except Refused:
        return False


def test_another_user_is_hung_up_on(bed: Bed, fragment: Fragment) -> None:
    for path in (bed.scratch, fragment.directory, fragment.path):
        os.chmod(path, 0o777)  # noqa: S103
    os.seteuid(65534)
    try:
        client = fragment.connect()
        with pytest.raises((EOFError, ConnectionError)):
            client.hello()
    finally:
        os.seteuid(0)
    assert fragment.client.hello().newest == 1
