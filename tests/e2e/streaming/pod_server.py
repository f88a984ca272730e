"""A server for the tests of port-forward, run in a pod's network: ADDRESS PORT hash|zeros|echo.

hash answers the SHA-256 of all that comes once its end has come; zeros sends 50 MiB; echo sends back.
"""

from __future__ import annotations

import hashlib
import socket
import socketserver
import sys

ZEROS = 50 << 20


class Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        connection: socket.socket = self.request
        behaviour = sys.argv[3]
        if behaviour == "zeros":
            connection.sendall(bytes(ZEROS))
            return
        digest = hashlib.sha256()
        while piece := connection.recv(1 << 16):
            digest.update(piece)
            if behaviour == "echo":
                connection.sendall(piece)
        if behaviour == "hash":
            connection.sendall(digest.hexdigest().encode())


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle is part of the tests."""


if __name__ == "__main__":
    Server.address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
    with Server((sys.argv[1], int(sys.argv[2])), Handler) as server:
        print("listening", flush=True)
        server.serve_forever()
