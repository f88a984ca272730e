"""`phantom ps`, `stop` and `rm`: list, stop and remove pods."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from phantom_cri.api.cri.v1 import api_pb2 as cri
from phantom_cri.api.phantom.v1 import node_pb2 as wire
from phantom_cri.cli.connection import Daemon, connect
from phantom_cri.cli.failure import Failure
from phantom_cri.cli.request import LOG_DIRECTORY, MADE_BY
from phantom_cri.cli.run import remove_pod
from phantom_cri.cli.tables import age, print_json, short_id, table

_STATES = {
    cri.ContainerState.CONTAINER_CREATED: "created",
    cri.ContainerState.CONTAINER_RUNNING: "running",
    cri.ContainerState.CONTAINER_EXITED: "exited",
    cri.ContainerState.CONTAINER_UNKNOWN: "unknown",
}


async def ps(args: Namespace) -> int:
    async with connect(args.host) as daemon:
        containers = (await daemon.runtime.ListContainers(cri.ListContainersRequest())).containers
        running = cri.ContainerState.CONTAINER_RUNNING
        chosen = [container for container in containers if args.all or container.state == running]
        chosen.sort(key=lambda container: container.created_at, reverse=True)
        if args.quiet:
            for container in chosen:
                print(short_id(container.id))
            return 0
        pods = {
            pod.id: pod for pod in (await daemon.runtime.ListPodSandbox(cri.ListPodSandboxRequest())).items
        }
        answer = await daemon.node.ListPodStarts(wire.ListPodStartsRequest())
        starts = {start.pod_sandbox_id: start for start in answer.pods}
        statuses = {container.id: await _status(daemon, container) for container in chosen}
    rows = [
        _described(
            container,
            statuses[container.id],
            pods.get(container.pod_sandbox_id, cri.PodSandbox()),
            starts.get(container.pod_sandbox_id),
        )
        for container in chosen
    ]
    if args.json:
        print_json(rows)
    else:
        print(ps_table(rows, time.time_ns()))
    return 0


async def _status(daemon: Daemon, container: cri.Container) -> cri.ContainerStatus:
    """Only needed for an exit code; for a running container the list entry has everything."""
    if container.state != cri.ContainerState.CONTAINER_EXITED:
        return cri.ContainerStatus()
    request = cri.ContainerStatusRequest(container_id=container.id)
    return (await daemon.runtime.ContainerStatus(request)).status


def _described(
    container: cri.Container, status: cri.ContainerStatus, pod: cri.PodSandbox, start: wire.PodStart | None
) -> dict[str, Any]:
    return {
        "id": container.id,
        "image": container.image.user_specified_image or container.image.image,
        "created_at": container.created_at,
        "state": _STATES[container.state],
        "exit_code": status.exit_code,
        "finished_at": status.finished_at,
        "name": container.metadata.name,
        "pod_id": container.pod_sandbox_id,
        "pod": pod.metadata.name,
        "namespace": pod.metadata.namespace,
        "start": "" if start is None else "warm" if start.warm else "cold",
        "cold_reason": start.cold_reason if start else "",
        "stages": {stage.name: stage.duration for stage in start.stages} if start else {},
        "labels": dict(container.labels),
    }


def ps_table(rows: list[dict[str, Any]], now: int) -> str:
    """`now`: nanoseconds since the epoch."""
    header = ("CONTAINER ID", "IMAGE", "CREATED", "STATUS", "NAME", "POD ID", "POD", "START")
    return table(header, [_cells(row, now) for row in rows])


def _cells(row: dict[str, Any], now: int) -> tuple[str, ...]:
    status = str(row["state"]).capitalize()
    if row["state"] == "exited":
        status = f"Exited ({row['exit_code']}) {age(now - row['finished_at'])} ago"
    start = f"cold: {row['cold_reason']}" if row["cold_reason"] else row["start"] or "-"
    return (
        short_id(row["id"]),
        short_id(row["image"]) if row["image"].startswith("sha256:") else row["image"],
        f"{age(now - row['created_at'])} ago",
        status,
        row["name"],
        short_id(row["pod_id"]),
        row["pod"],
        start,
    )


async def stop(args: Namespace) -> int:
    async with connect(args.host) as daemon:
        for sandbox_id in await _find(daemon, args.pods):
            for container in await _containers(daemon, sandbox_id):
                await daemon.runtime.StopContainer(
                    cri.StopContainerRequest(container_id=container.id, timeout=max(args.time, 0))
                )
            await daemon.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
            _tell(args, "stopped", sandbox_id)
    return 0


async def remove(args: Namespace) -> int:
    async with connect(args.host) as daemon:
        for sandbox_id in await _find(daemon, args.pods):
            running = [
                container.metadata.name
                for container in await _containers(daemon, sandbox_id)
                if container.state == cri.ContainerState.CONTAINER_RUNNING
            ]
            if running and not args.force:
                raise Failure(
                    f"pod {short_id(sandbox_id)} is running ({', '.join(running)}): stop it, or use --force"
                )
            await remove_pod(daemon, sandbox_id, await _log_directory(daemon, sandbox_id))
            _tell(args, "removed", sandbox_id)
    return 0


def _tell(args: Namespace, what: str, sandbox_id: str) -> None:
    if args.json:
        print_json({what: sandbox_id})
    else:
        print(short_id(sandbox_id))


async def _containers(daemon: Daemon, sandbox_id: str) -> list[cri.Container]:
    chosen = cri.ContainerFilter(pod_sandbox_id=sandbox_id)
    return list((await daemon.runtime.ListContainers(cri.ListContainersRequest(filter=chosen))).containers)


async def _log_directory(daemon: Daemon, sandbox_id: str) -> str:
    """Only of pods created by `phantom run`: the kubelet removes its own."""
    answer = await daemon.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id))
    status = answer.status
    return status.annotations.get(LOG_DIRECTORY, "") if status.labels.get(MADE_BY) == "true" else ""


async def _find(daemon: Daemon, names: list[str]) -> list[str]:
    """Ids of the pods that the user named; fails if one is unknown or ambiguous."""
    pods = (await daemon.runtime.ListPodSandbox(cri.ListPodSandboxRequest())).items
    containers = (await daemon.runtime.ListContainers(cri.ListContainersRequest())).containers
    return list(dict.fromkeys(match_pod(name, pods, containers) for name in names))


def match_pod(name: str, pods: Iterable[cri.PodSandbox], containers: Iterable[cri.Container]) -> str:
    """By full name first, then by a prefix of a pod's or container's id."""
    found = {pod.id for pod in pods if pod.metadata.name == name}
    if not found and name:
        found = {pod.id for pod in pods if pod.id.startswith(name)}
        found |= {container.pod_sandbox_id for container in containers if container.id.startswith(name)}
    if len(found) > 1:
        raise Failure(
            f"{name} is ambiguous, it matches {len(found)} pods: {', '.join(sorted(map(short_id, found)))}"
        )
    if not found:
        raise Failure(f"No such pod: {name}")
    return found.pop()


async def find_container(daemon: Daemon, name: str, inside: str, *, running: bool) -> cri.Container:
    """The container that the user named; `inside` picks one of a pod's. Raises Failure."""
    pods = (await daemon.runtime.ListPodSandbox(cri.ListPodSandboxRequest())).items
    containers = (await daemon.runtime.ListContainers(cri.ListContainersRequest())).containers
    return match_container(name, inside, pods, containers, running=running)


def match_container(
    name: str,
    inside: str,
    pods: Iterable[cri.PodSandbox],
    containers: Iterable[cri.Container],
    *,
    running: bool,
) -> cri.Container:
    """By a prefix of a container's id, else a pod's only one. `running`: ignore others."""
    alive = cri.ContainerState.CONTAINER_RUNNING
    found = [container for container in containers if name and container.id.startswith(name)]
    if not found:
        sandbox_id = match_pod(name, pods, containers)
        found = [container for container in containers if container.pod_sandbox_id == sandbox_id]
    found = [container for container in found if inside in ("", container.metadata.name)]
    if running or len(found) > 1:
        chosen = [container for container in found if container.state == alive] or found
        if running and found and chosen[0].state != alive:
            raise Failure(f"container {short_id(found[0].id)} of {name} is not running")
        found = chosen
    if len(found) > 1:
        names = ", ".join(sorted(container.metadata.name for container in found))
        raise Failure(f"{name} has {len(found)} containers ({names}): pick one with --container")
    if not found:
        raise Failure(f"No such container: {inside or name}" + (f" in {name}" if inside else ""))
    return found[0]
