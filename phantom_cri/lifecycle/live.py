"""What the daemon holds in memory of one pod and one container, around their records."""

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
    """A checkpoint being made. `abandoned`: the container is to die, and must not wait for it."""

    work: asyncio.Task[None]
    abandoned: bool = False


@dataclass(slots=True, eq=False)
class Container:
    record: ContainerRecord
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    starting: bool = False
    stop_sent: bool = False  # the stop signal goes out once, whatever the number of callers
    has_cgroup: bool = False
    checkpoint: UnderWay | None = None
    policy: CompiledPolicy | None = None  # None: an earlier daemon made the container, and nobody asked yet
    resolved: Resolved | None = None  # None: likewise
    preparation: asyncio.Task[Plan] | None = None  # until it is used, or given up
    plan: Plan | None = None  # as last sent to the fragment; None: an earlier daemon sent it, or none was yet

    @property
    def id(self) -> str:
        return self.record.id


@dataclass(slots=True, eq=False)
class Pod:
    record: SandboxRecord
    fragment: FragmentHandle | None  # None once it is dead
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    containers: dict[str, Container] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)  # seconds by stage, of its start
    stopping: bool = False
    released: bool = False  # its network is given back

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def newer_record(self) -> str:
        """Which record of it has a schema that this daemon does not know; "" for none."""
        newer = codec.newer_schema(self.record)
        if newer:
            return f"its record: {newer}"
        for container in self.containers.values():
            if newer := codec.newer_schema(container.record):
                return f"container {container.id}: {newer}"
        return ""

    @property
    def other_version(self) -> str:
        """Why a pod that runs can only be watched and ended by this daemon; "" when it can be used."""
        if self.fragment is None:
            return ""
        return self.fragment.other_version or self.newer_record

    def check_version(self) -> None:
        """Raises FailedPrecondition for a pod of another release: it can only be watched and ended."""
        if why := self.other_version:
            raise FailedPrecondition(f"pod sandbox {self.id} can only be stopped and removed: {why}")

    def check_records(self) -> None:
        """Raises FailedPrecondition for a record of which this daemon can change nothing but its head."""
        if why := self.newer_record:
            raise FailedPrecondition(f"pod sandbox {self.id} cannot be changed: {why}")
