"""Security contexts that must be refused, and how `kubectl describe` says so."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.e2e.cluster.kube import Kube
from tests.e2e.cluster.manifests import STAY, Object, needs, pod, run

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Refused:
    """What a pod asks for, and the words on each runtime; `same` where the kubelet itself refuses."""

    same: str = ""
    phantom: str = ""
    containerd: str = ""
    container: Object = field(default_factory=dict)
    pod: Object = field(default_factory=dict)

    def words(self, runtime: str) -> str:
        return self.same or {"phantom": self.phantom, "containerd": self.containerd}[runtime]


LOCALHOST = {"type": "Localhost", "localhostProfile": "missing.json"}

REFUSED = {
    "apparmor": Refused(
        same="?", container={"appArmorProfile": {"type": "Localhost", "localhostProfile": "missing"}}
    ),
    "seccomp": Refused(same="?", container={"seccompProfile": LOCALHOST}),
    "capability": Refused(same="?", container={"capabilities": {"add": ["NO_SUCH"]}}),
    "user": Refused(
        same="container has runAsNonRoot and image will run as root", container={"runAsNonRoot": True}
    ),
    "sysctl": Refused(same="SysctlForbidden", pod={"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]}),
    "network-sysctl": Refused(same="SysctlForbidden", pod={"sysctls": [{"name": "net.ipv4.tcp_no_such", "value": "1"}]}),
}


def refused(name: str, case: Refused) -> Object:
    return pod(f"refused-{name}", run(STAY, securityContext=case.container), securityContext=case.pod)


@needs(*(refused(name, case) for name, case in REFUSED.items()))
@pytest.mark.parametrize("name", REFUSED)
def test_a_security_context_is_refused_with_its_reason(kube: Kube, name: str) -> None:
    kube.wait_described(f"refused-{name}", REFUSED[name].words(kube.runtime))
    assert not any(
        one.get("ready") for one in kube.pods[f"refused-{name}"]["status"].get("containerStatuses", [])
    )
