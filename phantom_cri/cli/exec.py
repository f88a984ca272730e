"""`phantom exec` and `phantom attach`: connect the user's terminal or pipes to a container."""

from __future__ import annotations

import asyncio
import json
import time
from argparse import Namespace

from phantom_cri.api.cri.v1 import api_pb2 as cri
from phantom_cri.cli.connection import Daemon, connect
from phantom_cri.cli.converse import check_terminal, converse
from phantom_cri.cli.failure import Failure, start_exit_code
from phantom_cri.cli.pods import find_container
from phantom_cri.cli.streams import connected

EXIT_GRACE_S = 2.0
POLL_S = 0.01


async def run(args: Namespace) -> int:
    """`phantom exec`: returns the command's exit code; 126 and 127 as in docker if it could not run."""
    if not args.command_line:
        raise Failure("exec: the command is missing", 2)
    check_terminal(args)
    async with connect(args.host) as daemon:
        container = await find_container(daemon, args.pod, args.container, running=True)
        request = cri.ExecRequest(
            container_id=container.id,
            cmd=args.command_line,
            tty=args.tty,
            stdin=args.interactive,
            stdout=True,
            stderr=not args.tty,
        )
        url = (await daemon.runtime.Exec(request)).url
    async with connected(url, args.tls_ca) as streams:
        ended = await converse(streams, interactive=args.interactive, tty=args.tty)
    if ended and ended.failure:
        code = start_exit_code(ended.failure)
        raise Failure(ended.failure, code if code in (126, 127) else 0)
    return ended.exit_code if ended else 0


async def attach(args: Namespace) -> int:
    """Returns the container's exit code, or 0 if the user has detached."""
    async with connect(args.host) as daemon:
        container = await find_container(daemon, args.pod, args.container, running=True)
        question = cri.ContainerStatusRequest(container_id=container.id, verbose=True)
        answer = await daemon.runtime.ContainerStatus(question)
        config = json.loads(answer.info["info"])["config"]
        tty, stdin = bool(config.get("tty")), bool(config.get("stdin")) and not args.no_stdin
        request = cri.AttachRequest(
            container_id=container.id, tty=tty, stdin=stdin, stdout=True, stderr=not tty
        )
        url = (await daemon.runtime.Attach(request)).url
        async with connected(url, args.tls_ca) as streams:
            ended = await converse(streams, interactive=stdin, tty=tty, detachable=True, redraw=True)
        if ended is None:
            return 0
        if ended.failure:
            raise Failure(ended.failure)
        # End of input has ended the attach, but without stdin_once not the container.
        keeps_running = streams.input_ended and not config.get("stdin_once")
        return await _exit_code(daemon, container.id, 0 if keeps_running else EXIT_GRACE_S)


async def _exit_code(daemon: Daemon, container_id: str, grace_s: float) -> int:
    """0 if the container still runs after `grace_s`: its output may end earlier."""
    request = cri.ContainerStatusRequest(container_id=container_id)
    deadline = time.monotonic() + grace_s
    while True:
        status = (await daemon.runtime.ContainerStatus(request)).status
        if status.state == cri.ContainerState.CONTAINER_EXITED:
            return status.exit_code & 0xFF
        if time.monotonic() >= deadline:
            return 0
        await asyncio.sleep(POLL_S)
