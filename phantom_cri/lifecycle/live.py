"""What the daemon holds in memory of one pod and one container, around their records."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

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

    def check_version(self) -> None:
        """Raises FailedPrecondition when the fragment speaks no protocol version of this daemon's."""
        if self.fragment is not None and self.fragment.other_version:
            raise FailedPrecondition(
                f"pod sandbox {self.id} can only be stopped and removed: {self.fragment.other_version}"
            )
