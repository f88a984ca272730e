"""The daemon's in-memory state of a pod and a container, with their records."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from phantom_cri import codec
from phantom_cri.errors import FailedPrecondition
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.model import CompiledPolicy, ContainerRecord, SandboxRecord
from phantom_cri.plans import Plan
from phantom_cri.requests import Resolved


@dataclass(slots=True, eq=False)
class UnderWay:
    """A checkpoint in progress. `abandoned`: the container is being killed, and must not wait for it."""

    work: asyncio.Task[None]
    abandoned: bool = False


@dataclass(slots=True, eq=False)
class Container:
    record: ContainerRecord
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    starting: bool = False
    stop_sent: bool = False  # the stop signal is sent once, even with several callers
    has_cgroup: bool = False
    checkpoint: UnderWay | None = None
    policy: CompiledPolicy | None = None  # None: not read yet, for a container of an earlier daemon
    resolved: Resolved | None = None  # None: likewise
    preparation: asyncio.Task[Plan] | None = None  # until it is used or cancelled
    plan: Plan | None = None  # the last one sent to the fragment by this daemon

    @property
    def id(self) -> str:
        return self.record.id


@dataclass(slots=True, eq=False)
class Pod:
    record: SandboxRecord
    fragment: FragmentHandle | None  # None once it is dead
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    containers: dict[str, Container] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)  # seconds by stage of its start
    stopping: bool = False
    released: bool = False  # its network is released

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def newer_record(self) -> str:
        """Its record with a schema that this daemon does not support; "" for none."""
        newer = codec.newer_schema(self.record)
        if newer:
            return f"its record: {newer}"
        for container in self.containers.values():
            if newer := codec.newer_schema(container.record):
                return f"container {container.id}: {newer}"
        return ""

    @property
    def other_version(self) -> str:
        """Why this daemon can only watch and kill a running pod; "" if it can manage it."""
        if self.fragment is None:
            return ""
        return self.fragment.other_version or self.newer_record

    def check_version(self) -> None:
        """Raises FailedPrecondition for a pod of another release that can only be watched and killed."""
        if why := self.other_version:
            raise FailedPrecondition(f"pod sandbox {self.id} can only be stopped and removed: {why}")

    def check_records(self) -> None:
        """Raises FailedPrecondition for a record of a newer schema, of which only the head can be changed."""
        if why := self.newer_record:
            raise FailedPrecondition(f"pod sandbox {self.id} cannot be changed: {why}")
