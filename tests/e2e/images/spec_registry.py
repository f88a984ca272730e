"""A registry by the distribution specification, over real HTTP, that can be told to misbehave.

Debian's docker-registry never breaks a connection, asks for tokens of its own, or redirects:
this one does, and keeps what it was asked for.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD, TOKEN, IDENTITY = "robot", "s3cret-Pa55", "t0ken-abcdef", "identity-xyz"


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    certificate: bool = False  # the client showed one


@dataclass(frozen=True)
class Reply:
    """An answer as it is; `length`: how the end of the body is told, "length", "chunked" or "close"."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: str = "length"


@dataclass
class Behaviour:
    """`cut`: digest → bytes after which the first answers break off, one entry per answer.
    `stall`: digests whose body stops half way until `released`. `redirect`: base URL for blobs.
    `rule`: asked before all else; None leaves the answer to the registry.
    """

    auth: str = ""  # "", "bearer", "identity", "anonymous": a token for whoever asks
    rule: Callable[[Asked], Reply | None] = lambda asked: None
    realm: str = ""  # of the challenge; the registry's own by default
    version: str = "HTTP/1.1"
    silent_close: bool = False  # a second request on a connection closes it
    cut: dict[str, list[int]] = field(default_factory=dict)
    stall: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)  # manifests that a HEAD finds and a GET does not
    redirect: str = ""
    fail_first: int = 0  # so many 503 answers
    trickle: float = 0  # seconds after each tenth of a blob
    corrupt: set[str] = field(default_factory=set)
    no_head: bool = False
    no_range: bool = False
    released: threading.Event = field(default_factory=threading.Event)


class SpecRegistry:
    """Serves the OCI layouts given to `add`; `host` is `127.0.0.1:PORT`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.behaviour = Behaviour()
        self.token = TOKEN
        self.asked: list[Asked] = []
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self.sent: Counter[str] = Counter()
        self.sending: Counter[str] = Counter()  # bodies of which the first half is out
        self._server = _Server(self)
        if tls:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.host = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> SpecRegistry:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.behaviour.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, layout: Path, name: str, tag: str = "latest") -> str:
        """Take in a layout as `name:tag`; answers the reference."""
        for blob in (layout / "blobs" / "sha256").iterdir():
            self.blobs[f"sha256:{blob.name}"] = blob.read_bytes()
        entry = json.loads((layout / "index.json").read_text())["manifests"][0]
        self.tags[f"{name}:{tag}"] = entry["digest"]
        self.types[entry["digest"]] = entry["mediaType"]
        return f"{self.host}/{name}:{tag}"

    def add_manifest(self, content: bytes, media_type: str, digest: str, name: str, tag: str) -> None:
        self.blobs[digest], self.types[digest], self.tags[f"{name}:{tag}"] = content, media_type, digest

    def content(self, path: str) -> bytes:
        """What `path` of a manifest or blob stands for; empty for all else."""
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(.+)", path)
        digest = self.tags.get(f"{found[1]}:{found[3]}", found[3]) if found else ""
        return self.blobs.get(digest, b"")

    def blob_requests(self, digest: str) -> list[Asked]:
        return [
            each for each in self.asked if each.method == "GET" and each.path.endswith(f"/blobs/{digest}")
        ]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, registry: SpecRegistry) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.registry = registry


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    answered = False

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: `asked` is the log."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.registry.asked.append(Asked("POST", self.path, form, dict(self.headers)))
        good = form.get("refresh_token") == [IDENTITY]
        self._json(200 if good else 401, {"access_token": TOKEN} if good else {})

    def _answer(self, *, body: bool) -> None:
        if self.server.registry.behaviour.silent_close and self.answered:
            self.close_connection = True
            return
        self.answered = True
        parts = urlsplit(self.path)
        shown = isinstance(self.connection, ssl.SSLSocket) and bool(self.connection.getpeercert())
        asked = Asked(self.command, parts.path, parse_qs(parts.query), dict(self.headers), shown)
        self.server.registry.asked.append(asked)
        behaviour = self.server.registry.behaviour
        self.protocol_version = behaviour.version
        self.close_connection = self.close_connection or behaviour.version == "HTTP/1.0"
        if reply := behaviour.rule(asked):
            self._reply(reply, body=body)
        elif not body and behaviour.no_head:
            self._json(405, {})
        elif parts.path == "/token":
            self._token(asked)
        elif behaviour.fail_first > 0:
            behaviour.fail_first -= 1
            self._json(503, {}, {"Retry-After": "0"})
        elif behaviour.auth and self.headers.get("Authorization") != f"Bearer {self.server.registry.token}":
            self._challenge(parts.path)
        elif found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", parts.path):
            self._manifest(found[1], found[2], body=body)
        elif found := re.fullmatch(r"/v2/.+/blobs/(.+)", parts.path):
            self._blob(found[1])
        else:
            self._json(404, {"errors": [{"code": "NAME_UNKNOWN", "message": "unknown"}]})

    def _challenge(self, path: str) -> None:
        name = path.removeprefix("/v2/").rpartition("/")[0].rpartition("/")[0]
        realm = self.server.registry.behaviour.realm or f"http://{self.server.registry.host}/token"
        challenge = f'Bearer realm="{realm}",service="tests",scope="repository:{name}:pull"'
        echoed = self.headers.get("Authorization", "")
        self._json(
            401,
            {"errors": [{"code": "UNAUTHORIZED", "message": f"denied {echoed} {PASSWORD}"}]},
            {"WWW-Authenticate": challenge},
        )

    def _token(self, asked: Asked) -> None:
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        anonymous = self.server.registry.behaviour.auth == "anonymous"
        good = anonymous or asked.headers.get("Authorization") == basic
        good = good and asked.query.get("service") == ["tests"]
        self._json(200 if good else 401, {"token": self.server.registry.token} if good else {"errors": []})

    def _manifest(self, name: str, reference: str, *, body: bool) -> None:
        digest = self.server.registry.tags.get(f"{name}:{reference}", reference)
        hidden = body and digest in self.server.registry.behaviour.hidden
        if hidden or digest not in self.server.registry.blobs:
            self._json(404, {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]})
            return
        content = self.server.registry.blobs[digest]
        if digest in self.server.registry.behaviour.corrupt:
            content = content.replace(b"schemaVersion", b"schemaversion")
        self.send_response(200)
        self.send_header("Content-Type", self.server.registry.types.get(digest, "application/json"))
        self.send_header("Docker-Content-Digest", digest)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _blob(self, digest: str) -> None:
        behaviour = self.server.registry.behaviour
        if behaviour.redirect:
            self.send_response(307)
            self.send_header("Location", f"{behaviour.redirect}/v2/x/blobs/{digest}?signature=secret-sig")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.server.registry.blobs.get(digest)
        if content is None:
            self._json(404, {"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown"}]})
            return
        content = bytes(len(content)) if digest in behaviour.corrupt else content
        self._send(digest, content, behaviour)

    def _send(self, digest: str, content: bytes, behaviour: Behaviour) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and not behaviour.no_range else 0
        rest = content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        cuts = behaviour.cut.get(digest)
        rest = rest[: cuts.pop(0)] if cuts else rest
        if digest in behaviour.stall:
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            self.server.registry.sending[digest] += 1
            behaviour.released.wait()
            rest = rest[len(rest) // 2 :]
        size = max(1, len(rest) // 10) if behaviour.trickle else len(rest) or 1
        for start in range(0, len(rest), size):
            self.wfile.write(rest[start : start + size])
            self.wfile.flush()
            time.sleep(behaviour.trickle)
        self.server.registry.sent[digest] += len(rest)
        self.close_connection = True

    def _reply(self, reply: Reply, *, body: bool) -> None:
        self.send_response(reply.status)
        headers = dict(reply.headers)
        if reply.length == "length":
            headers.setdefault("Content-Length", str(len(reply.body)))
        elif reply.length == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body and reply.length == "chunked":
            for start in range(0, len(reply.body), 40_000):
                piece = reply.body[start : start + 40_000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif body:
            self.wfile.write(reply.body)

    def _json(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def handle(self) -> None:
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True  # the client was killed or gave up, as the test wanted
