"""`phantom run`: pull, pod, container, output, exit code; with cleanup after a failure of each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from phantom_cri.api.cri.v1 import api_pb2 as cri
from phantom_cri.api.phantom.v1 import node_pb2 as wire
from phantom_cri.cli import request
from phantom_cri.cli.connection import Daemon, connect
from phantom_cri.cli.converse import check_terminal
from phantom_cri.cli.failure import Failure, start_exit_code
from phantom_cri.cli.interactive import RESTART_SECONDS, at_terminal, standard_input
from phantom_cri.cli.logs import LogFollower
from phantom_cri.cli.progress import follow as follow_progress
from phantom_cri.cli.tables import duration, short_id
from phantom_cri.rpc.client import RpcError, StatusCode

T = TypeVar("T")

INTERRUPT_GRACE = 2
"""Seconds between SIGTERM and SIGKILL for a container after Ctrl-C."""

DAEMON_GONE = (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
"""Codes of a call when the daemon stops: before it was sent, and during it."""

POLL_SECONDS = (0.002, 0.1)
"""Shortest and longest pause in seconds between two checks of log and state."""


async def run(args: Namespace) -> int:
    """Returns the container's exit code; 125, 126 and 127 as in docker if it could not run."""
    if args.rm and args.detach:
        raise Failure("--rm and --detach exclude each other: a detached pod is not removed at its end")
    if not args.detach:
        check_terminal(args)
    if args.json and args.interactive and args.tty:
        raise Failure("--json and -it exclude each other: the output of a terminal is not JSON")
    config = request.pod_config(args)
    request.container_config(args, "", config.metadata.name, wire.Policy())  # checked before the pull
    async with connect(args.host) as daemon:
        image_id = await _image(daemon, args)
        async with _pod(daemon, config, args) as pod:
            container_id = await _create(daemon, args, config, pod.id, image_id)
            if args.detach:
                await _start(daemon, container_id)
                await _tell_start(daemon, args, pod.id, container_id, None)
                return 0
            code = await _converse(daemon, args, config, container_id)
            if code is None:
                pod.kept = True
                print(f"phantom: detached, pod {short_id(pod.id)} keeps running", file=sys.stderr)
                return 0
            await _tell_start(daemon, args, pod.id, container_id, code)
            if not args.rm:
                await daemon.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod.id))
            return code


class _Pod:
    """The created pod; `kept`: do not remove it, even with --rm."""

    def __init__(self, sandbox_id: str) -> None:
        self.id = sandbox_id
        self.kept = False


async def _image(daemon: Daemon, args: Namespace) -> str:
    """The image's id, pulled according to --pull."""
    spec = cri.ImageSpec(image=args.image, runtime_handler=args.runtime_handler)
    if args.pull != "always":
        status = await daemon.images.ImageStatus(cri.ImageStatusRequest(image=spec))
        if status.HasField("image"):
            return status.image.id
        if args.pull == "never":
            raise Failure(f"No such image: {args.image}")
        if not args.json:
            print(f"Unable to find image '{args.image}' locally", file=sys.stderr)
    images = await follow_progress(daemon.node.Pull(wire.PullRequest(image=spec)), quiet=args.json)
    return images[0].id


@asynccontextmanager
async def _pod(daemon: Daemon, config: cri.PodSandboxConfig, args: Namespace) -> AsyncIterator[_Pod]:
    """Create a pod; removed after an error, or with --rm."""
    message = cri.RunPodSandboxRequest(config=config, runtime_handler=args.runtime_handler)
    starting = asyncio.ensure_future(_answer(daemon.runtime.RunPodSandbox(message)))
    try:
        pod = _Pod((await asyncio.shield(starting)).pod_sandbox_id)
    except asyncio.CancelledError:
        # Wait for its answer, even if cancelled: else the pod would not be removed.
        made = await starting
        await remove_pod(daemon, made.pod_sandbox_id, config.log_directory)
        raise
    stays = False
    try:
        yield pod
        stays = pod.kept or not args.rm
    finally:
        if not stays:
            await remove_pod(daemon, pod.id, config.log_directory)


async def _answer(call: Awaitable[T]) -> T:
    return await call


async def _create(
    daemon: Daemon, args: Namespace, config: cri.PodSandboxConfig, sandbox_id: str, image_id: str
) -> str:
    policy = await _policy_of(daemon, args.runtime_handler)
    container = request.container_config(args, image_id, config.metadata.name, policy)
    created = await daemon.runtime.CreateContainer(
        cri.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=container, sandbox_config=config)
    )
    return created.container_id


async def _policy_of(daemon: Daemon, handler: str) -> wire.Policy:
    for policy in (await daemon.node.ListPolicies(wire.ListPoliciesRequest())).policies:
        if handler in policy.handlers:
            return policy
    raise Failure(f"the daemon names no policy for runtime handler {handler!r}, so no paths could be masked")


async def _start(daemon: Daemon, container_id: str) -> None:
    try:
        await daemon.runtime.StartContainer(cri.StartContainerRequest(container_id=container_id))
    except RpcError as error:
        details = error.details() or ""
        raise Failure(f"Error response from daemon: {details}", start_exit_code(details)) from None


async def _converse(
    daemon: Daemon, args: Namespace, config: cri.PodSandboxConfig, container_id: str
) -> int | None:
    """Start the container; returns its exit code; None: the user has detached."""
    if args.interactive and args.tty:
        stayed = await at_terminal(daemon, args, container_id, lambda: _start(daemon, container_id))
        return await _follow(daemon, args, None, container_id) if stayed else None
    await _start(daemon, container_id)
    log = LogFollower(os.path.join(config.log_directory, request.LOG_NAME))
    try:
        async with standard_input(daemon, args, container_id):
            return await _follow(daemon, args, log, container_id)
    finally:
        log.close()


async def _follow(daemon: Daemon, args: Namespace, log: LogFollower | None, container_id: str) -> int:
    """Copy the container's log until it has ended; Ctrl-C stops the container."""
    pause, longest = POLL_SECONDS
    try:
        while True:
            status = await _status(daemon, container_id)
            if log and _copy(log, args):
                pause = POLL_SECONDS[0]
            if status.state not in (
                cri.ContainerState.CONTAINER_RUNNING,
                cri.ContainerState.CONTAINER_CREATED,
            ):
                return _exit_code(status)
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
    except BaseException:
        with contextlib.suppress(RpcError):
            await daemon.runtime.StopContainer(
                cri.StopContainerRequest(container_id=container_id, timeout=INTERRUPT_GRACE)
            )
        raise


async def _status(daemon: Daemon, container_id: str) -> cri.ContainerStatus:
    """Waits during a restart of the daemon: the container and its log do not need it."""
    message = cri.ContainerStatusRequest(container_id=container_id)
    try:
        return (await daemon.runtime.ContainerStatus(message)).status
    except RpcError as error:
        if error.code() not in DAEMON_GONE:
            raise
    call = daemon.runtime.ContainerStatus(message, wait_for_ready=True, timeout=RESTART_SECONDS)
    return (await call).status


def _exit_code(status: cri.ContainerStatus) -> int:
    if status.state == cri.ContainerState.CONTAINER_UNKNOWN:
        raise Failure(f"the daemon lost track of container {status.id}")
    if status.reason == "OOMKilled":
        print("phantom: the container ran out of memory (OOMKilled)", file=sys.stderr)
    return status.exit_code & 0xFF


def _copy(log: LogFollower, args: Namespace) -> bool:
    """Whether there was new output."""
    found = False
    for line in log.read():
        found = True
        if args.json:
            document = {"stream": line.stream, "text": line.text.decode(errors="replace")}
            sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        else:
            (sys.stderr if line.stream == "stderr" else sys.stdout).buffer.write(line.text)
    if found:
        sys.stdout.flush()
        sys.stderr.flush()
    return found


async def _tell_start(
    daemon: Daemon, args: Namespace, sandbox_id: str, container_id: str, code: int | None
) -> None:
    """Prints the id of a detached pod, a last object for --json, a sentence for --timing."""
    if args.detach and not args.json:
        print(sandbox_id)
    if not args.json and not args.timing:
        return
    answer = await daemon.node.ListPodStarts(wire.ListPodStartsRequest(pod_sandbox_id=sandbox_id))
    start = answer.pods[0] if answer.pods else wire.PodStart()
    if args.timing:
        print(start_sentence(start), file=sys.stderr)
    if args.json:
        document = {
            "pod_id": sandbox_id,
            "container_id": container_id,
            "start": "warm" if start.warm else "cold",
            "cold_reason": start.cold_reason,
            "stages": {stage.name: stage.duration for stage in start.stages},
        }
        print(json.dumps(document if code is None else {**document, "exit_code": code}, ensure_ascii=False))


def start_sentence(start: wire.PodStart) -> str:
    """`start: warm from pool default; run claim 0.21 ms, run network 0.05 ms`."""
    way = f"warm from pool {start.pool}" if start.warm else f"cold ({start.cold_reason or 'no reason given'})"
    stages = ", ".join(f"{stage.name} {duration(stage.duration)}" for stage in start.stages)
    return f"start: {way}{'; ' + stages if stages else ''}"


async def remove_pod(daemon: Daemon, sandbox_id: str, log_directory: str) -> None:
    """Remove pod, containers and the log folder created by `phantom run`. Completes even if interrupted."""
    message = cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
    removal = asyncio.ensure_future(_answer(daemon.runtime.RemovePodSandbox(message)))
    try:
        await asyncio.shield(removal)
    except asyncio.CancelledError:
        await removal
        raise
    if log_directory:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(log_directory, request.LOG_NAME))
        with contextlib.suppress(OSError):  # it contains other files
            os.rmdir(log_directory)
