"""The node's namespaces, host ports, names, and what the security context asks for."""

from __future__ import annotations

import pytest

from tests.e2e.cluster.kube import Kube
from tests.e2e.cluster.manifests import STAY, WEB, Object, needs, pod, run
from tests.e2e.cluster.test_talk import get

pytestmark = pytest.mark.root


def shows(name: str, script: str, **spec: object) -> Object:
    return pod(name, run(script), **spec)


@needs(
    pod(
        "host-users",
        run(
            "cat /proc/self/uid_map; id -u; echo x >/v/x; stat -c %u /v/x",
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
        ),
        hostUsers=False,
        volumes=[{"name": "v", "emptyDir": {}}],
    )
)
def test_a_pod_has_a_user_namespace_of_its_own(kube: Kube) -> None:
    inside, outside, length, user, owner = kube.succeeded("host-users").split()
    assert (inside, user, owner) == ("0", "0", "0")
    assert int(outside) >= 65536
    assert int(length) == 65536


@needs(
    shows("host-network", "ip -4 -o address show dev node0; hostname", hostNetwork=True),
    shows("host-pid", "tr '\\0' ' ' </proc/1/cmdline | grep -c .; pgrep -x kubelet | wc -l", hostPID=True),
    shows("host-ipc", "readlink /proc/self/ns/ipc", hostIPC=True),
)
def test_the_nodes_namespaces_are_shared_where_asked(kube: Kube) -> None:
    assert kube.cluster.address in kube.succeeded("host-network")
    kube.wait("host-network", lambda pod: pod["status"].get("podIP") == kube.cluster.address)
    assert int(kube.succeeded("host-pid").split()[1]) >= 1
    assert kube.succeeded("host-ipc").startswith("ipc:[")


@needs(pod("host-port", run(WEB, ports=[{"containerPort": 80, "hostPort": 8099}])))
def test_a_host_port_leads_to_the_pod(kube: Kube) -> None:
    kube.ready("host-port")
    kube.until(lambda: answers(f"{kube.cluster.address}:8099"), "an answer")
    assert get(f"{kube.cluster.address}:8099/") == b"host-port\n"


def answers(address: str) -> bool:
    try:
        return bool(get(address))
    except OSError:
        return False


DNS = {
    "nameservers": ["10.1.2.3"],
    "searches": ["a.example", "b.example"],
    "options": [{"name": "ndots", "value": "3"}],
}


@needs(
    shows(
        "names",
        "hostname; hostname -f; tail -n1 /etc/hosts; cat /etc/resolv.conf",
        hostname="me",
        subdomain="sub",
        hostAliases=[{"ip": "10.9.8.7", "hostnames": ["alias"]}],
        dnsPolicy="None",
        dnsConfig=DNS,
    )
)
def test_names_are_as_asked(kube: Kube) -> None:
    lines = kube.succeeded("names").splitlines()
    assert lines[0] == "me"
    assert lines[1].startswith("me.sub.default.svc")
    assert lines[2].split() == ["10.9.8.7", "alias"]
    assert lines[3:] == ["search a.example b.example", "nameserver 10.1.2.3", "options ndots:3"]


@needs(
    shows(
        "sysctl",
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        securityContext={"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "1"}]},
    )
)
def test_safe_sysctls_are_set(kube: Kube) -> None:
    assert kube.succeeded("sysctl") == "1\n"


CONTEXT = {"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "supplementalGroups": [4000]}
CAPABILITIES = {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}


@needs(
    pod(
        "ids",
        run("id -u; id -g; id -G; stat -c %g /v", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        securityContext=CONTEXT,
        volumes=[{"name": "v", "emptyDir": {}}],
    ),
    pod(
        "confined",
        run(
            "grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status; touch /x 2>/dev/null || echo no",
            securityContext={
                "capabilities": CAPABILITIES,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        ),
    ),
    pod(
        "privileged", run("grep CapEff /proc/self/status; ls /dev/kmsg", securityContext={"privileged": True})
    ),
    pod("selinux", run("echo fine"), securityContext={"seLinuxOptions": {"level": "s0:c1,c2"}}),
)
def test_the_security_context_is_applied(kube: Kube) -> None:
    assert kube.succeeded("ids").splitlines() == ["1000", "2000", "2000 3000 4000", "3000"]
    lines = kube.succeeded("confined").replace("\t", " ").splitlines()
    assert sorted(lines) == sorted(["CapEff: 0000000000000400", "Seccomp: 2", "NoNewPrivs: 1", "no"])
    assert "/dev/kmsg" in kube.succeeded("privileged")
    assert kube.succeeded("selinux") == "fine\n"


@needs(pod("lasting", run(STAY)))
def test_the_pods_own_files_are_the_kubelets(kube: Kube) -> None:
    address = kube.ready("lasting")["status"]["podIP"]
    hosts = kube.sh("lasting", "cat /etc/hosts")
    assert "Kubernetes-managed" in hosts
    assert address in hosts
