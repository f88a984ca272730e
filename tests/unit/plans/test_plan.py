from __future__ import annotations

import errno
import fcntl
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantom_cri.errors import Internal, InvalidArgument
from phantom_cri.plans import constants, ops
from phantom_cri.plans.plan import Block, Plan, Slots, sealed
from tests.unit.plans.decoder import decode

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
RAW_TEXT = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"?").decode("utf-8", "surrogateescape"))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "u": st.integers(0, 2**64 - 1),
    "i": st.integers(-(2**63), 2**63 - 1),
    "s": TEXT | RAW_TEXT,
    "b": st.binary(max_size=60),
    "v": st.lists(TEXT, max_size=5).map(tuple),
}


def an_op(kind: type[ops.Op]) -> st.SearchStrategy[ops.Op]:
    return st.tuples(*[VALUES[letter] for letter in kind.signature]).map(lambda values: kind(*values))


ANY_OP = st.one_of([an_op(kind) for kind in ops.OPS.values()])


def test_nul_in_a_string_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="NUL"):
        Plan((ops.Mask("/a\0b"),)).encode()
    with pytest.raises(InvalidArgument, match="NUL"):
        Plan((ops.Exec("/a", ("a", "b\0"), ()),)).encode()


def test_unknown_fd_name_is_refused() -> None:
    with pytest.raises(Internal, match="'log'"):
        Plan((), log="log", donated=("kill",)).encode()


def test_long_id_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="longer than 160"):
        Plan((), pid_namespace_of="x" * 161).encode()
    assert decode(Plan((), pid_namespace_of="x" * 160).encode()).pid_namespace_of == "x" * 160


def test_slots_run_out() -> None:
    with pytest.raises(InvalidArgument, match="240"):
        Slots([str(n) for n in range(241)])
    slots = Slots(["log"])
    assert slots["log"] == 0
    assert [slots.take() for _ in range(1023)] == list(range(1, 1024))
    with pytest.raises(InvalidArgument, match="1024 slots"):
        slots.take()


@given(st.lists(ANY_OP, max_size=12))
def test_an_independent_decoder_reads_every_op(made: list[ops.Op]) -> None:
    decoded = decode(Plan(tuple(made)).encode())
    assert [fields for _, fields in decoded.ops] == [msgspec.structs.asdict(op) for op in made]
    assert [name for name, _ in decoded.ops] == [
        "".join(f"_{c}" if c.isupper() else c for c in type(op).__name__)[1:].upper() for op in made
    ]


@given(st.lists(ANY_OP, max_size=6), st.lists(ANY_OP, max_size=6))
def test_a_block_encodes_as_its_ops(first: list[ops.Op], second: list[ops.Op]) -> None:
    blocked = Plan((Block(*first), *second))
    assert blocked.encode() == Plan((*first, *second)).encode()
    assert list(blocked.ops()) == [*first, *second]


def test_header_holds_what_the_plan_says() -> None:
    plan = Plan(
        (ops.Pivot(),),
        kind=constants.KIND_CONTAINER,
        flags=constants.PLAN_LOG | constants.PLAN_KILL_REST,
        donated=("mounts", "cgroup", "log", "kill", "oom", "in"),
        clone_flags=constants.CLONE_NEWPID,
        cgroup="cgroup",
        log="log",
        kill="kill",
        oom="oom",
        stdio=("in", "", ""),
        pid_namespace_of="ab",
    )
    decoded = decode(plan.encode())
    assert decoded.pid_namespace_of == "ab"
    assert decoded.header | {"magic": 0, "size": 0} == {
        "magic": 0,
        "size": 0,
        "kind": 1,
        "flags": 9,
        "op_count": 1,
        "slot_count": 6,
        "clone_flags": 0x20000000,
        "cgroup": 1,
        "log": 2,
        "kill": 3,
        "oom": 4,
        "stdin": 5,
        "stdout": -1,
        "stderr": -1,
    }


def test_descriptions_name_sources() -> None:
    plan = Plan(
        (
            ops.JoinNs(0, constants.CLONE_NEWNS),
            ops.OpenTree(1, "/a", constants.OPEN_RECURSIVE | constants.OPEN_CREATE),
            ops.NewFs(2, "tmpfs", ("mode=755",), constants.MOUNT_ATTR_NOSUID),
            ops.Attach(1, "/b", constants.MOUNT_ATTR_RDONLY, constants.MS_PRIVATE | constants.MS_REC),
            ops.Attach(2, "/dev"),
            ops.Attach(1, "/c", constants.MOUNT_ATTR_RDONLY, constants.MS_SLAVE, constants.ATTACH_RECURSIVE),
        ),
        donated=("the host",),
    )
    assert plan.describe() == [
        "join mount namespace of the host",
        "open /a with its submounts, made if missing",
        "new tmpfs mode=755, nosuid",
        "bind /a on /b read-only",
        "mount tmpfs on /dev",
        "bind /a on /c read-only with its submounts, slave",
    ]
    assert plan.numbered()[3] == "  3 bind /a on /b read-only"


@given(ANY_OP)
def test_every_op_describes_itself_in_one_line(op: ops.Op) -> None:
    if isinstance(op, ops.Ids) and len(op.groups) % 4:
        return
    assert op.describe({})


def test_a_sealed_memfd_stays_as_it_is() -> None:
    fd = sealed(b"plan")
    try:
        with pytest.raises(OSError) as refused:
            os.pwrite(fd, b"x", 0)
        assert refused.value.errno == errno.EPERM
        with pytest.raises(OSError):
            os.ftruncate(fd, 8)
        with pytest.raises(OSError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0)
        assert os.pread(fd, 10, 0) == b"plan"
    finally:
        os.close(fd)
