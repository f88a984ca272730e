"""`phantom logs`: a container's output, from its log file."""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import Namespace
from datetime import datetime

from phantom_cri.api.cri.v1 import api_pb2 as cri
from phantom_cri.cli.connection import Daemon, connect
from phantom_cri.cli.failure import Failure
from phantom_cri.cli.logs import LogFollower
from phantom_cri.cli.pods import find_container
from phantom_cri.rpc.client import RpcError, StatusCode

FILE_POLL_S = 0.05
STATE_POLL_S = 1.0


async def logs(args: Namespace) -> int:
    """`phantom logs`."""
    async with connect(args.host) as daemon:
        container = await find_container(daemon, args.pod, args.container, running=False)
        status = await _status(daemon, container.id)
        if not status.log_path:
            raise Failure(f"container {container.id[:12]} has no log")
        follower = LogFollower(status.log_path)
        try:
            follower.seek_tail(args.tail)
            _show(follower, args)
            if args.follow:
                await _follow(daemon, container.id, follower, args)
        except (OSError, ValueError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            raise Failure(f"log {status.log_path}: {error}") from None
        finally:
            follower.close()
    return 0


async def _status(daemon: Daemon, container_id: str) -> cri.ContainerStatus:
    request = cri.ContainerStatusRequest(container_id=container_id)
    return (await daemon.runtime.ContainerStatus(request)).status


async def _follow(daemon: Daemon, container_id: str, follower: LogFollower, args: Namespace) -> None:
    """Follow the log until the container has ended; waits for a restarting daemon."""
    until_next_look = 0.0
    while True:
        running = True
        if until_next_look <= 0:
            running = await _runs(daemon, container_id)
            until_next_look = STATE_POLL_S
        _show(follower, args)
        if not running:
            return
        await asyncio.sleep(FILE_POLL_S)
        until_next_look -= FILE_POLL_S


async def _runs(daemon: Daemon, container_id: str) -> bool:
    try:
        state = (await _status(daemon, container_id)).state
    except RpcError as error:
        if error.code() is StatusCode.NOT_FOUND:
            return False
        if error.code() is StatusCode.UNAVAILABLE:
            return True
        raise
    return state in (cri.ContainerState.CONTAINER_RUNNING, cri.ContainerState.CONTAINER_CREATED)


def _show(follower: LogFollower, args: Namespace) -> None:
    for line in follower.read():
        if args.since and datetime.fromisoformat(line.time) < args.since:
            continue
        if args.json:
            text = line.text.decode(errors="replace")
            document = {"time": line.time, "stream": line.stream, "text": text}
            sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
            continue
        out = (sys.stderr if line.stream == "stderr" else sys.stdout).buffer
        out.write(f"{line.time} ".encode() + line.text if args.timestamps and line.begins else line.text)
    sys.stdout.flush()
    sys.stderr.flush()
