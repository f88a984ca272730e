"""What is known of pods and tasks, and what of it is on disk, for a later daemon."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import Literal

from phantom_cri import codec
from phantom_cri.codec import Stored
from phantom_cri.errors import FailedPrecondition, NotFound
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.model import Resources
from phantom_cri.plans import Plan
from shim.console import Console
from shim.document import DeviceRule
from shim.kept import Kept
from shim.oci_spec import Base, Spaces
from shim.stdio import Streams

State = Literal["creating", "created", "running", "stopped"]
POD = "pod.json"
TASKS = "tasks"


class ProcessRecord(Stored, frozen=True):
    """A task's first process, or an exec. Times: ns since the epoch. `spec`: of an exec, as it was given."""

    streams: Streams = Streams()
    state: State = "creating"
    pid: int = 0
    exit_code: int = 0
    exited_at: int = 0
    spec: str = ""


class TaskRecord(Stored, frozen=True):
    namespace: str
    id: str
    bundle: str
    cgroup: str
    resources: Resources
    devices: tuple[DeviceRule, ...]  # as the spec has them
    base: Base
    init: ProcessRecord
    paused: bool = False
    execs: dict[str, ProcessRecord] = {}


class PodRecord(Stored, frozen=True):
    """`address`: of the containerd that wants to hear of its tasks; spaces: of its first task."""

    namespace: str
    group: str
    address: str
    spaces: Spaces


@dataclass(slots=True, eq=False)
class Process:
    """What runs, or ran, beside its record: `exited` is set once it has."""

    exited: asyncio.Event = field(default_factory=asyncio.Event)
    console: Console | None = None
    input: Kept | None = None  # keeps its input from ending
    starting: bool = False

    def close_input(self) -> None:
        if self.console is not None:
            self.console.close_input()
        if self.input is not None:
            self.input.close()
            self.input = None


@dataclass(slots=True, eq=False)
class Task:
    record: TaskRecord
    pod: Pod
    init: Process = field(default_factory=Process)
    execs: dict[str, Process] = field(default_factory=dict)
    plan: Plan | None = None  # until it is started
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def id(self) -> str:
        return self.record.id

    def process(self, exec_id: str) -> tuple[ProcessRecord, Process]:
        """The first one for "". Raises NotFound."""
        if not exec_id:
            return self.record.init, self.init
        if exec_id not in self.execs:
            raise NotFound(f"task {self.id}: exec {exec_id}: there is none")
        return self.record.execs[exec_id], self.execs[exec_id]

    def note(self, exec_id: str, record: ProcessRecord) -> None:
        """Change what is recorded of a process. Raises OSError."""
        if exec_id:
            self.save(codec.replace(self.record, execs=self.record.execs | {exec_id: record}))
        else:
            self.save(codec.replace(self.record, init=record))

    def save(self, record: TaskRecord) -> None:
        """Raises OSError."""
        self.record = record
        codec.write_atomically(self.path, codec.to_json(record))

    def forget(self) -> None:
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return

    @property
    def path(self) -> str:
        return os.path.join(self.pod.folder, TASKS, f"{self.id}.json")

    def fragment_id(self, exec_id: str) -> str:
        """As the fragment knows the process."""
        return f"{self.id}/{exec_id}" if exec_id else self.id


@dataclass(slots=True, eq=False)
class Pod:
    """`fragment`: None before it is there, and once it is gone."""

    record: PodRecord
    fragment: FragmentHandle | None = None
    folder: str = ""
    tasks: dict[str, Task] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def living(self) -> FragmentHandle:
        """Raises FailedPrecondition."""
        if self.fragment is None or not self.fragment.alive():
            raise FailedPrecondition(f"pod {self.record.group}: its fragment is gone")
        return self.fragment

    def save(self) -> None:
        """Raises OSError."""
        codec.write_atomically(os.path.join(self.folder, POD), codec.to_json(self.record))
