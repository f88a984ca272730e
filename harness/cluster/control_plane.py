"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness.child import Child
from harness.cluster.certificates import Authority, write_kubeconfig
from harness.cluster.namespaces import Namespaces
from harness.tools import tool
from harness.waiting import wait_until

SERVICES = "10.96.0.0/16"


class ControlPlane:
    """Runs inside `place`; every file lies below `folder`. `kubeconfig` is the administrator's."""

    def __init__(self, folder: Path, place: Namespaces):
        self.folder = folder
        self.place = place
        self.server = f"https://{place.address}:6443"
        self.kubeconfig = folder / "kubeconfig"
        self.children: dict[str, Child] = {}

    def start(self) -> ControlPlane:
        """Starts all four and waits until the API server is ready."""
        self.folder.mkdir(parents=True)
        self.authority = Authority(self.folder / "certificates")
        self.serving = self.authority.server("server", self.place.address, "127.0.0.1")
        self.admin = self.authority.client("admin", "admin", "system:masters")
        write_kubeconfig(self.kubeconfig, self.server, self.authority, self.admin)
        accounts = self.folder / "certificates/accounts.key"
        # RSA: the only kind of key that kube-controller-manager signs tokens with in every release.
        subprocess.run(["openssl", "genrsa", "-out", accounts, "2048"], check=True, stderr=subprocess.PIPE)
        self._etcd()
        self._api_server(accounts)
        self._controllers(accounts)
        wait_until(self._ready, "the API server to be ready", timeout=90, interval=0.2)
        return self

    def client(self, name: str, user: str, group: str) -> Path:
        """A kubeconfig for another user."""
        pair = self.authority.client(name, user, group)
        return write_kubeconfig(self.folder / f"{name}.kubeconfig", self.server, self.authority, pair)

    def stop(self) -> None:
        """At the same time: nobody waits for another, and nothing is kept."""
        for child in self.children.values():
            child.kill()

    def _start(self, name: str, *flags: str) -> None:
        log = self.folder / f"{name}.log"
        self.children[name] = Child([*self.place.enter, tool(name), *flags], log)

    def _ready(self) -> bool:
        for name, child in self.children.items():
            if not child.running():
                raise RuntimeError(f"{name} ended with {child.process.returncode}\n{child.log_tail()}")
        command = [str(tool("kubectl")), f"--kubeconfig={self.kubeconfig}", "get", "--raw", "/readyz"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _etcd(self) -> None:
        self._start(
            "etcd",
            f"--data-dir={self.folder}/etcd",
            "--unsafe-no-fsync",
            "--log-level=warn",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
        )

    def _api_server(self, accounts: Path) -> None:
        self._start(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={self.place.address}",
            f"--service-cluster-ip-range={SERVICES}",
            "--allow-privileged=true",
            "--authorization-mode=Node,RBAC",
            f"--client-ca-file={self.authority.pair.certificate}",
            f"--tls-cert-file={self.serving.certificate}",
            f"--tls-private-key-file={self.serving.key}",
            f"--kubelet-certificate-authority={self.authority.pair.certificate}",
            f"--kubelet-client-certificate={self.admin.certificate}",
            f"--kubelet-client-key={self.admin.key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
            "--service-account-issuer=https://kubernetes.default.svc",
        )

    def _controllers(self, accounts: Path) -> None:
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={accounts}",
            f"--root-ca-file={self.authority.pair.certificate}",
        )
        self._start("kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false")
