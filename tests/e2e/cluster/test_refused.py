"""What must be refused, and how `kubectl describe` says so."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from harness.cluster.cluster import BUSYBOX
from tests.e2e.cluster.kube import Kube, is_ready
from tests.e2e.cluster.manifests import STAY, Object, needs, pod, run

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Refused:
    """Fields of container and pod, and the words on each runtime; `same` where the kubelet refuses."""

    same: str = ""
    phantom: str = ""
    containerd: str = ""
    container: Object = field(default_factory=dict)
    pod: Object = field(default_factory=dict)

    def words(self, runtime: str) -> str:
        return self.same or {"phantom": self.phantom, "containerd": self.containerd}[runtime]


def secured(**context: object) -> Object:
    return {"securityContext": context}


def mounted(path: str, **mount: object) -> Object:
    return {"volumeMounts": [{"name": "v", "mountPath": path, **mount}]}


def volume(**source: object) -> Object:
    return {"volumes": [{"name": "v", **source}]}


REFUSED = {
    "apparmor": Refused(
        # Of a host without AppArmor the kubelet says it.
        same="AppArmor",
        container=secured(appArmorProfile={"type": "Localhost", "localhostProfile": "missing"}),
    ),
    "seccomp": Refused(
        phantom="seccomp/missing.json': no such file",
        containerd="seccomp/missing.json: no such file or directory",
        container=secured(seccompProfile={"type": "Localhost", "localhostProfile": "missing.json"}),
    ),
    "root": Refused(
        same="container has runAsNonRoot and image will run as root", container=secured(runAsNonRoot=True)
    ),
    "unsafe-sysctl": Refused(
        same='forbidden sysctl: "kernel.msgmax" not allowlisted',
        pod=secured(sysctls=[{"name": "kernel.msgmax", "value": "65536"}]),
    ),
    "sysctl-value": Refused(
        phantom="sysctls: net/ipv4/ping_group_range: the kernel refuses the value 'bad'",
        containerd='failed to write sysctl net.ipv4.ping_group_range = "bad"',
        pod=secured(sysctls=[{"name": "net.ipv4.ping_group_range", "value": "bad"}]),
    ),
    "over-proc": Refused(
        phantom="mounts[0].container_path: only the host's /proc can be mounted on /proc",
        containerd="check proc-safety of /proc mount",
        container=mounted("/proc"),
        pod=volume(emptyDir={}),
    ),
    "inside-proc": Refused(
        phantom="mounts[0].container_path: /proc/sys cannot be covered, because it is inside /proc",
        containerd="check proc-safety of /proc/sys mount",
        container=mounted("/proc/sys"),
        pod=volume(emptyDir={}),
    ),
    "image-sub-path": Refused(
        phantom="ImageVolumeMountFailed: config.mounts[0].image: 'no/such' does not exist in the image",
        containerd='ImageVolumeMountFailed: failed to ensure image subpath "no/such"',
        container=mounted("/v", subPath="no/such"),
        pod=volume(image={"reference": BUSYBOX}),
    ),
}


def refused(name: str, case: Refused) -> Object:
    return pod(f"refused-{name}", run(STAY, **case.container), **case.pod)


@needs(*(refused(name, case) for name, case in REFUSED.items()))
@pytest.mark.parametrize("name", REFUSED)
def test_a_pod_is_refused_with_its_reason(kube: Kube, name: str) -> None:
    kube.wait_described(f"refused-{name}", REFUSED[name].words(kube.runtime))
    assert not is_ready(kube.pods[f"refused-{name}"])


TRACER = secured(capabilities={"add": ["SYS_PTRACE"]})


@needs(pod("tracer", run(STAY, **TRACER), shareProcessNamespace=True))
def test_who_traces_in_the_pods_pid_namespace_is_refused(kube: Kube) -> None:
    words = "capabilities.add: 'SYS_PTRACE' in the pod's shared pid namespace would give the container"
    kube.wait_described("tracer", words, timeout=20)


@needs(pod("tracing", run("cat /proc/1/root/etc/hostname", **TRACER)))
def test_who_traces_in_a_pid_namespace_of_its_own_is_not(kube: Kube) -> None:
    assert kube.succeeded("tracing") == "tracing\n"
