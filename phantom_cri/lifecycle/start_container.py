"""StartContainer: cgroup, log, plan; the fragment does the rest and answers once execve succeeded."""

from __future__ import annotations

import os
import time

from phantom_cri import codec, launch
from phantom_cri.cgroups import ABSENT, LaunchFds
from phantom_cri.errors import Internal, PhantomError
from phantom_cri.lifecycle import endings, states
from phantom_cri.lifecycle.container_launch import allowed_devices, container_launch
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.node import Node, Stages, log
from phantom_cri.lifecycle.shell import Shell
from phantom_cri.lifecycle.undo import Undo

START_ERROR = 128
"""Exit code of a container that could not be started, as containerd reports it."""


async def start_container(node: Node, container_id: str) -> None:
    """Start a created container. A failed start leaves it exited, with code 128 and reason StartError."""
    container = node.records.container(container_id)
    pod = node.records.pod_of(container)
    async with container.lock:
        if container.record.state == "running" and node.records.sent_again(container.id):
            return
        states.next_container_state(container.record.state, "start", container.id)
        states.next_sandbox_state(pod.record.state, "start container in", pod.id)
        shell = pod.shell
        if shell is None:
            raise Internal(f"pod sandbox {pod.id} is ready but has no fragment")
        container.starting = True
        try:
            await start(node, pod, shell, container)
        except PhantomError as error:
            record_failure(node, container, error)
            raise
        finally:
            container.starting = False
        catch_up(node, pod, container)


async def start(node: Node, pod: Pod, shell: Shell, container: Container) -> None:
    stages = Stages()
    record = container.record
    async with Undo("StartContainer") as undo:
        with stages.stage("cgroup"):
            undo.push("cgroup", lambda: endings.release_cgroup(node, container))
            container.has_cgroup = True
            limits = codec.replace(record.resources, pids_limit=node.config.pids_limit)
            devices = launch.resolve_devices(record.config)
            node.cgroups.create(record.cgroup, limits, allowed_devices(record, devices))
        with launch.Donations() as donations, node.cgroups.launch_fds(record.cgroup) as fds:
            with stages.stage("plan"):
                donate(node, donations, container, fds)
                plan = launch.container_plan(
                    container_launch(node, pod, container, devices), donations.names()
                )
            with stages.stage("kernel"):
                started = await shell.fragment.start(record.id, plan, donations)
                os.close(started.pidfd)
        container.record = codec.replace(
            record, state="running", started_at=time.time_ns(), process=started.process
        )
        with stages.stage("record"):
            node.records.save_container(container)
        undo.keep()
    node.observe(pod, "start", stages)
    log.info("container %s is running", record.id, extra={"sandbox_id": pod.id, "container_id": record.id})


def donate(node: Node, donations: launch.Donations, container: Container, fds: LaunchFds) -> None:
    """Everything the fragment needs by fd; it never opens a host path itself."""
    donations.lend("host_mounts", node.host_mounts)
    donations.lend("kill", fds.kill)
    if fds.oom != ABSENT:
        donations.lend("oom", fds.oom)
    if fds.clone_into is not None:
        donations.lend("cgroup", fds.clone_into)
    for index, procs in enumerate(fds.procs):
        donations.lend(f"procs{index}", procs)
    if container.record.log_path:
        donations.give("log", open_log(container.record.log_path))


def open_log(path: str) -> int:
    """Open or make a log file for appending; its folder is made, as CRI-O does. Raises Internal."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, 0o640)
    except OSError as error:
        raise Internal(f"log_path {path}: {error.strerror}") from error


def record_failure(node: Node, container: Container, error: PhantomError) -> None:
    container.record = codec.replace(
        container.record,
        state=states.next_container_state(container.record.state, "exit", container.id),
        exit_code=START_ERROR,
        finished_at=time.time_ns(),
        reason="StartError",
        message=str(error),
    )
    node.records.save_container(container)
    container.exited.set()


def catch_up(node: Node, pod: Pod, container: Container) -> None:
    """An exit, or the pod's death, that came before we had recorded the start."""
    early = pod.shell.take_early_exit(container.id) if pod.shell else None
    if early is not None:
        endings.container_exited(node, container.id, early)
    elif pod.record.state != "ready" and container.record.state == "running":
        endings.container_exited(node, container.id, endings.last_exit(node, container))
