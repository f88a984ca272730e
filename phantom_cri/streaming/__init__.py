"""Exec, attach and port-forward streams: HTTP upgrade, SPDY/3.1 and WebSocket. Independent of containers."""

from __future__ import annotations

from phantom_cri.streaming.server import StreamServer, StreamStatistics
from phantom_cri.streaming.session import Dial, OpenSession, Session

__all__ = ["Dial", "OpenSession", "Session", "StreamServer", "StreamStatistics"]
