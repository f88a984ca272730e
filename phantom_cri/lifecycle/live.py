"""What the daemon holds in memory of one pod and one container, around their records."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from phantom_cri.launch import Fragment
from phantom_cri.model import ContainerRecord, ProcessRef, SandboxRecord


@dataclass(slots=True, eq=False)
class Shell:
    """A living fragment: what a pool keeps and what a pod runs in."""

    id: str  # also the sandbox id of the pod that claims it
    folder: str  # STATE/pods/ID
    fragment: Fragment
    pool: str  # "" when born for one pod
    ips: tuple[str, ...] = ()
    born_at: float = field(default_factory=time.monotonic)

    def alive(self) -> bool:
        return self.fragment.alive

    @property
    def process(self) -> ProcessRef:
        return self.fragment.process


@dataclass(slots=True, eq=False)
class Container:
    record: ContainerRecord
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    starting: bool = False
    stop_sent: bool = False  # the stop signal goes out once, whatever the number of callers
    has_cgroup: bool = False

    @property
    def id(self) -> str:
        return self.record.id


@dataclass(slots=True, eq=False)
class Pod:
    record: SandboxRecord
    shell: Shell | None  # None once it is dead
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    containers: dict[str, Container] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)  # seconds by stage, of its start
    stopping: bool = False
    released: bool = False  # network and cgroup are given back

    @property
    def id(self) -> str:
        return self.record.id
