"""Connects to the daemon's socket, and converts errors to messages for users."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from phantom_cri.api.cri.v1.api_pb2_grpc import ImageServiceStub, RuntimeServiceStub
from phantom_cri.api.phantom.v1.node_pb2_grpc import NodeStub
from phantom_cri.cli.failure import Failure
from phantom_cri.cli.socket_check import check_socket
from phantom_cri.rpc import client
from phantom_cri.rpc.client import Channel, RpcError, StatusCode


class Daemon:
    """The services of one socket."""

    def __init__(self, channel: Channel) -> None:
        self.runtime = RuntimeServiceStub(channel)
        self.images = ImageServiceStub(channel)
        self.node = NodeStub(channel)


@asynccontextmanager
async def connect(host: str) -> AsyncIterator[Daemon]:
    """Raises Failure if the daemon does not answer, and for its errors inside the block."""
    path = check_socket(host)
    async with client.connect(path) as channel:
        try:
            yield Daemon(channel)
        except RpcError as error:
            raise refusal(error, host) from None


def refusal(error: RpcError, host: str) -> Failure:
    """A daemon's error in docker's format."""
    if error.code() is StatusCode.UNIMPLEMENTED and "phantom.v1" in (error.details() or ""):
        return Failure(f"Error response from daemon: {error.details()} (is {host} a Phantom daemon?)")
    return Failure(f"Error response from daemon: {error.details() or error.code().name}")
