"""`phantom run`: pull, pod, container, output, exit code; and the way back from each of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc
import grpc.aio

from phantom_cri.api.cri.v1 import api_pb2 as cri
from phantom_cri.api.phantom.v1 import node_pb2 as wire
from phantom_cri.cli import request
from phantom_cri.cli.connection import Daemon, connect
from phantom_cri.cli.failure import Failure
from phantom_cri.cli.logs import LogFollower
from phantom_cri.cli.progress import follow as follow_progress
from phantom_cri.cli.tables import duration

T = TypeVar("T")

INTERRUPT_GRACE = 2
"""Seconds between SIGTERM and SIGKILL for a container whose user pressed Ctrl-C."""

RESTART_SECONDS = 30

POLL_SECONDS = (0.002, 0.1)
"""Shortest and longest pause between two looks at log and state."""


async def run(args: Namespace) -> int:
    """Answers the container's exit code; 125, 126 and 127 are docker's for what never ran."""
    if args.rm and args.detach:
        raise Failure("--rm and --detach exclude each other: nobody would be there to remove the pod")
    config = request.pod_config(args)
    request.container_config(args, "", config.metadata.name)  # a wrong flag must not cost a pull
    async with connect(args.host) as daemon:
        image_id = await _image(daemon, args)
        async with _pod(daemon, config, args) as sandbox_id:
            container_id = await _start(daemon, args, config, sandbox_id, image_id)
            if args.detach:
                await _tell_start(daemon, args, sandbox_id, container_id, None)
                return 0
            code = await _follow(daemon, args, config, container_id)
            await _tell_start(daemon, args, sandbox_id, container_id, code)
            if not args.rm:
                await daemon.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
            return code


async def _image(daemon: Daemon, args: Namespace) -> str:
    """The image's id, pulled when --pull says so."""
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
async def _pod(daemon: Daemon, config: cri.PodSandboxConfig, args: Namespace) -> AsyncIterator[str]:
    """A pod that stays only when all went well and --rm was not given."""
    message = cri.RunPodSandboxRequest(config=config, runtime_handler=args.runtime_handler)
    starting = asyncio.ensure_future(_answer(daemon.runtime.RunPodSandbox(message)))
    try:
        sandbox_id = (await asyncio.shield(starting)).pod_sandbox_id
    except asyncio.CancelledError:
        # Its answer must not be lost: the pod would stay behind.
        made = await starting
        await remove_pod(daemon, made.pod_sandbox_id, config.log_directory)
        raise
    stays = False
    try:
        yield sandbox_id
        stays = not args.rm
    finally:
        if not stays:
            await remove_pod(daemon, sandbox_id, config.log_directory)


async def _answer(call: Awaitable[T]) -> T:
    return await call


async def _start(
    daemon: Daemon, args: Namespace, config: cri.PodSandboxConfig, sandbox_id: str, image_id: str
) -> str:
    container = request.container_config(args, image_id, config.metadata.name)
    created = await daemon.runtime.CreateContainer(
        cri.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=container, sandbox_config=config)
    )
    try:
        await daemon.runtime.StartContainer(cri.StartContainerRequest(container_id=created.container_id))
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        raise Failure(f"Error response from daemon: {details}", start_exit_code(details)) from None
    return created.container_id


def start_exit_code(message: str) -> int:
    """127: no such command, 126: not executable, 125: anything else, from the words of the daemon."""
    if not re.search(r'\bexec: "', message):
        return 125
    absent = re.search(r"executable file not found|no such file or directory", message)
    return 127 if absent else 126


async def _follow(daemon: Daemon, args: Namespace, config: cri.PodSandboxConfig, container_id: str) -> int:
    """Copy the container's output until it has ended; Ctrl-C stops it."""
    log = LogFollower(os.path.join(config.log_directory, request.LOG_NAME))
    pause, longest = POLL_SECONDS
    try:
        while True:
            status = await _status(daemon, container_id)
            if _copy(log, args):
                pause = POLL_SECONDS[0]
            if status.state not in (
                cri.ContainerState.CONTAINER_RUNNING,
                cri.ContainerState.CONTAINER_CREATED,
            ):
                return _exit_code(status)
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
    except BaseException:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await daemon.runtime.StopContainer(
                cri.StopContainerRequest(container_id=container_id, timeout=INTERRUPT_GRACE)
            )
        raise
    finally:
        log.close()


async def _status(daemon: Daemon, container_id: str) -> cri.ContainerStatus:
    """Sits out a restart of the daemon: the container goes on without it, and so does its log."""
    message = cri.ContainerStatusRequest(container_id=container_id)
    try:
        return (await daemon.runtime.ContainerStatus(message)).status
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
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
    """Whether there was anything."""
    found = False
    for stream, text in log.read():
        found = True
        if args.json:
            line = {"stream": stream, "text": text.decode(errors="replace")}
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        else:
            (sys.stderr if stream == "stderr" else sys.stdout).buffer.write(text)
    if found:
        sys.stdout.flush()
        sys.stderr.flush()
    return found


async def _tell_start(
    daemon: Daemon, args: Namespace, sandbox_id: str, container_id: str, code: int | None
) -> None:
    """The pod's id when it was detached, a last object for --json, a sentence for --timing."""
    if args.detach and not args.json:
        print(sandbox_id)
    if not args.json and not args.timing:
        return
    answer = await daemon.node.ListPodStarts(wire.ListPodStartsRequest(pod_sandbox_id=sandbox_id))
    start = answer.pods[0] if answer.pods else wire.PodStart()
    if args.timing:
        print(start_sentence(start), file=sys.stderr)
    if args.json:
        told = {
            "pod_id": sandbox_id,
            "container_id": container_id,
            "start": "warm" if start.warm else "cold",
            "cold_reason": start.cold_reason,
            "stages": {stage.name: stage.duration for stage in start.stages},
        }
        print(json.dumps(told if code is None else {**told, "exit_code": code}, ensure_ascii=False))


def start_sentence(start: wire.PodStart) -> str:
    """`start: warm from pool default; run claim 0.21 ms, run network 0.05 ms`."""
    way = f"warm from pool {start.pool}" if start.warm else f"cold ({start.cold_reason or 'no reason given'})"
    stages = ", ".join(f"{stage.name} {duration(stage.duration)}" for stage in start.stages)
    return f"start: {way}{'; ' + stages if stages else ''}"


async def remove_pod(daemon: Daemon, sandbox_id: str, log_directory: str) -> None:
    """Pod, containers and the log folder that `phantom run` made for it. Runs to its end when interrupted."""
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
        with contextlib.suppress(OSError):  # somebody put files of their own there
            os.rmdir(log_directory)
