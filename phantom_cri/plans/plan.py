"""A plan: instructions for a fragment, as a frozen value that can be described and encoded.

All decisions are made before (container_plan.py and its siblings); the plan is executed in C. Layout:
native/protocol.h, `struct ph_plan`.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence

from phantom_cri.codec import Record
from phantom_cri.errors import Internal, InvalidArgument
from phantom_cri.plans import constants
from phantom_cri.plans.op import Op

_HEADER = struct.Struct(f"<8IQ7iI{constants.ID_SIZE}s")


class Block:
    """Ops that many plans share (the usual /dev, the masks, one policy's credentials): encoded once."""

    __slots__ = ("encoded", "ops")

    def __init__(self, *ops: Op) -> None:
        self.ops = ops
        self.encoded = b"".join([op.encode() for op in ops])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and self.ops == other.ops

    def __hash__(self) -> int:
        return hash(self.ops)

    def __repr__(self) -> str:
        return f"Block({', '.join(map(repr, self.ops))})"


class Slots:
    """Numbers the slots of one plan: the donated fds by name from 0, then fds opened by ops."""

    def __init__(self, donated: Sequence[str]) -> None:
        if len(donated) > constants.DONATED_MAX:
            raise InvalidArgument(
                f"{len(donated)} fds for one launch, at most {constants.DONATED_MAX} are possible"
            )
        self._numbers = {name: number for number, name in enumerate(donated)}
        self.next = len(donated)

    def __getitem__(self, name: str) -> int:
        """Raises Internal if no such fd is donated."""
        try:
            return self._numbers[name]
        except KeyError:
            raise Internal(f"the plan needs fd {name!r}, donated are {list(self._numbers)}") from None

    def take(self, count: int = 1) -> int:
        """The first of `count` free slots. Raises InvalidArgument if a request needs too many."""
        first, self.next = self.next, self.next + count
        if self.next > constants.SLOTS:
            raise InvalidArgument(f"one launch needs more than {constants.SLOTS} slots (mounts, devices)")
        return first


class Plan(Record, frozen=True):
    """`donated`: names of the fds in slots 0…; `cgroup`, `log`, `kill`, `oom`, `stdio`: one of them or "".

    kind: KIND_*; flags: PLAN_*; clone_flags: CLONE_* of the new process;
    pid_namespace_of: id of the process whose pid namespace it is started in.
    """

    parts: tuple[Op | Block, ...]
    kind: int = constants.KIND_ADOPT
    flags: int = 0
    donated: tuple[str, ...] = ()
    clone_flags: int = 0
    cgroup: str = ""
    log: str = ""
    kill: str = ""
    oom: str = ""
    stdio: tuple[str, str, str] = ("", "", "")
    pid_namespace_of: str = ""

    def ops(self) -> Iterator[Op]:
        for part in self.parts:
            if isinstance(part, Block):
                yield from part.ops
            else:
                yield part

    def encode(self) -> bytes:
        """Raises InvalidArgument on a NUL in a string or a long id, Internal on an unknown fd."""
        count = 0
        chunks = []
        for part in self.parts:
            if isinstance(part, Block):
                count += len(part.ops)
                chunks.append(part.encoded)
            else:
                count += 1
                chunks.append(part.encode())
        body = b"".join(chunks)
        return self._header(count, _HEADER.size + len(body)) + body

    def _header(self, count: int, size: int) -> bytes:
        process = self.pid_namespace_of.encode()
        if len(process) > constants.ID_MAX:
            raise InvalidArgument(f"id {self.pid_namespace_of!r} is longer than {constants.ID_MAX} bytes")
        roles = (self.cgroup, self.log, self.kill, self.oom, *self.stdio)
        return _HEADER.pack(
            constants.PLAN_MAGIC,
            size,
            _HEADER.size,
            self.kind,
            self.flags,
            count,
            len(self.donated),
            0,
            self.clone_flags,
            *[self._slot(name) for name in roles],
            0,
            process,
        )

    def _slot(self, name: str) -> int:
        if not name:
            return -1
        try:
            return self.donated.index(name)
        except ValueError:
            raise Internal(f"the plan names fd {name!r} but donates only {list(self.donated)}") from None

    def describe(self) -> list[str]:
        """One line per op; errors call the line with index 7 "op 7"."""
        slots = dict(enumerate(self.donated))
        lines = []
        for op in self.ops():
            lines.append(op.describe(slots))
            labelled = op.label()
            if labelled is not None:
                slots[labelled[0]] = labelled[1]
        return lines

    def numbered(self) -> list[str]:
        """`describe`, each line with the index that an error names."""
        return [f"{index:3} {line}" for index, line in enumerate(self.describe())]


_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def sealed(content: bytes) -> int:
    """A sealed memfd with `content`; the caller closes it. Raises OSError."""
    fd = os.memfd_create("plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        if os.write(fd, content) != len(content):
            raise Internal(f"a plan of {len(content)} bytes did not fit into a memfd")
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd
