"""Checks that a daemon listens at the socket: with the kernel's error, and before grpc is imported."""

from __future__ import annotations

import socket

from phantom_cri.cli.failure import Failure


class Unreachable(Failure):
    """No daemon answers at the socket."""


def check_socket(host: str) -> str:
    """The path of a socket with a listener. Raises Unreachable, or Failure for an invalid address."""
    path = host.removeprefix("unix://")
    if path == host or not path.startswith("/"):
        raise Failure(f"--host: must be unix:// and an absolute path, got {host!r}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(path)
        except PermissionError:
            raise Failure(f"Permission denied at {host}: use root or sudo") from None
        except OSError as error:
            raise Unreachable(
                f"Cannot connect to the Phantom daemon at {host} ({error.strerror or error}). "
                f"Is it running? Start it with: phantom-cri --listen {host}"
            ) from None
    return path
