"""Connecting to a service on a Unix socket of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

MESSAGE_LIMIT = 64 << 20
"""Bytes; larger than any message of our servers."""

Channel = grpc.aio.Channel
RpcError = grpc.aio.AioRpcError
StatusCode = grpc.StatusCode


@asynccontextmanager
async def connect(path: str) -> AsyncIterator[Channel]:
    """A channel for generated stubs. Connects at the first call, which raises RpcError on failure."""
    options = [
        ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        ("grpc.default_authority", "localhost"),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
        yield channel
