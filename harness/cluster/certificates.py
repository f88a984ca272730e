"""An authority and what it signs, by openssl, for two days."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: Path
    key: Path


class Authority:
    """Signs with a key of its own that it keeps, like all others, in `folder`."""

    def __init__(self, folder: Path):
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.pair = self._request("authority", "/CN=authority", "basicConstraints=critical,CA:TRUE")

    def server(self, name: str, *addresses: str) -> Pair:
        """For a server at these IP addresses and at localhost."""
        names = ",".join(["DNS:localhost", *(f"IP:{address}" for address in addresses)])
        return self._sign(name, f"/CN={name}", f"subjectAltName={names}")

    def client(self, name: str, user: str, group: str) -> Pair:
        """For a user of the API server; it takes the user's name from CN and the groups from O."""
        return self._sign(name, f"/O={group}/CN={user}", "extendedKeyUsage=clientAuth")

    def _sign(self, name: str, subject: str, extension: str) -> Pair:
        signer = ["-CA", str(self.pair.certificate), "-CAkey", str(self.pair.key)]
        return self._request(name, subject, extension, *signer)

    def _request(self, name: str, subject: str, extension: str, *more: str) -> Pair:
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command = ["openssl", "req", "-x509", "-days", "2", *key]
        command += ["-keyout", str(pair.key), "-out", str(pair.certificate)]
        command += ["-subj", subject, "-addext", extension, *more]
        subprocess.run(command, check=True, stderr=subprocess.PIPE)
        return pair


def write_kubeconfig(path: Path, server: str, authority: Authority, pair: Pair) -> Path:
    """Writes what kubectl and the components reach the API server at `server` (a URL) with."""
    cluster = {"server": server, "certificate-authority": str(authority.pair.certificate)}
    user = {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "phantom",
        "clusters": [{"name": "phantom", "cluster": cluster}],
        "users": [{"name": "me", "user": user}],
        "contexts": [{"name": "phantom", "context": {"cluster": "phantom", "user": "me"}}],
    }
    path.write_text(yaml.safe_dump(content))
    path.chmod(0o600)
    return path
