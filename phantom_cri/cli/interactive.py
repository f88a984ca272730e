"""`phantom run -i` and `-it`: the user's input for a new container."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from phantom_cri.api.cri.v1 import api_pb2 as cri
from phantom_cri.cli.connection import Daemon
from phantom_cri.cli.converse import converse
from phantom_cri.cli.failure import Failure
from phantom_cri.cli.streams import connected
from phantom_cri.rpc.client import RpcError, StatusCode

RESTART_SECONDS = 30
"""Seconds to wait for a restarting daemon."""


async def at_terminal(
    daemon: Daemon, args: Namespace, container_id: str, start: Callable[[], Awaitable[None]]
) -> bool:
    """Attach the user's terminal, start the container and wait for its end; False: the user has detached.

    Attaches before the start, so that no output is missed. Reconnects if the connection is lost, since the
    container keeps running if the daemon restarts. Raises Failure, and the errors of `start`.
    """
    started = False
    while url := await _attach(daemon, container_id, tty=True):
        async with connected(url, args.tls_ca) as streams:
            if not started:
                await start()
            ended = await converse(streams, interactive=True, tty=True, detachable=True, redraw=started)
        started = True
        if ended is None:
            return False
        if ended.failure and not ended.lost:
            raise Failure(ended.failure)
        if not ended.lost:
            break
    return True


@asynccontextmanager
async def standard_input(daemon: Daemon, args: Namespace, container_id: str) -> AsyncIterator[None]:
    """With -i, passes standard input to the container; its output is read from its log, without loss."""
    if not args.interactive:
        yield
        return
    feeding = asyncio.create_task(_feed(daemon, args, container_id))
    try:
        yield
    finally:
        feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await feeding


async def _feed(daemon: Daemon, args: Namespace, container_id: str) -> None:
    try:
        url = await _attach(daemon, container_id, tty=False)
        if url:
            async with connected(url, args.tls_ca) as streams:
                ended = await converse(streams, interactive=True, tty=False)
            if ended and ended.failure:
                raise Failure(ended.failure)
    except Failure as failure:
        if not await _has_ended(daemon, container_id):  # a container may end before the attach
            print(f"phantom: standard input: {failure}", file=sys.stderr)


async def _has_ended(daemon: Daemon, container_id: str) -> bool:
    request = cri.ContainerStatusRequest(container_id=container_id)
    try:
        answer = await daemon.runtime.ContainerStatus(request, wait_for_ready=True, timeout=RESTART_SECONDS)
    except RpcError:
        return False
    return bool(answer.status.state == cri.ContainerState.CONTAINER_EXITED)


async def _attach(daemon: Daemon, container_id: str, *, tty: bool) -> str:
    """The URL, or "" if the container has already ended."""
    request = cri.AttachRequest(container_id=container_id, tty=tty, stdin=True, stdout=tty)
    try:
        return (await daemon.runtime.Attach(request, wait_for_ready=True, timeout=RESTART_SECONDS)).url
    except RpcError as error:
        if error.code() is StatusCode.FAILED_PRECONDITION:
            return ""
        raise Failure(f"Error response from daemon: {error.details()}") from None
