"""Exec, attach and port-forward streams: HTTP upgrade, SPDY/3.1 and WebSocket. Knows no container."""
