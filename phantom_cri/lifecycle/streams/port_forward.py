"""Port-forward: connections to ports inside a pod."""

from __future__ import annotations

import asyncio
import os
import socket

from phantom_cri.errors import FailedPrecondition, Unavailable
from phantom_cri.fragments import LaunchError
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.lifecycle.live import Pod
from phantom_cri.lifecycle.runtime import Runtime

LOCALHOST = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

CONNECT_TIMEOUT = 10.0
"""Seconds for a server in the pod to accept a connection."""


def ready_pod(runtime: Runtime, sandbox_id: str) -> tuple[Pod, FragmentHandle]:
    """Raises NotFound, FailedPrecondition."""
    pod = runtime.records.pod(sandbox_id)
    if pod.record.state != "ready" or pod.fragment is None:
        raise FailedPrecondition(f"cannot forward ports of pod sandbox {pod.id}: it is {pod.record.state}")
    pod.check_version()
    return pod, pod.fragment


async def dial(runtime: Runtime, sandbox_id: str, port: int) -> int:
    """Connect to `port` of the pod's localhost; returns a non-blocking socket, which the caller closes.

    The fragment creates the socket, so it is in the pod's network namespace. Raises Unavailable with the
    error for each address.
    """
    _, fragment = ready_pod(runtime, sandbox_id)
    refusals = []
    for family, address in LOCALHOST:
        try:
            return await _connected(fragment, family, address, port)
        except TimeoutError:
            refusals.append(f"{address}: no answer within {CONNECT_TIMEOUT:.0f} s")
        except OSError as error:
            refusals.append(f"{address}: {os.strerror(error.errno or 0)}")
        except LaunchError as error:  # no IPv6 on this node
            refusals.append(f"{address}: {os.strerror(error.number)}")
    raise Unavailable(f"failed to connect to localhost:{port} inside the pod ({', '.join(refusals)})")


async def _connected(fragment: FragmentHandle, family: int, address: str, port: int) -> int:
    with socket.socket(fileno=await fragment.client.tcp_socket(family)) as made:
        made.setblocking(False)
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await asyncio.get_running_loop().sock_connect(made, (address, port))
        return made.detach()
