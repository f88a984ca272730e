"""Volumes of every kind that needs no driver."""

from __future__ import annotations

from typing import Any

import pytest

from harness.cluster.cluster import BUSYBOX
from tests.e2e.cluster.kube import Kube
from tests.e2e.cluster.manifests import STAY, Object, named, needs, pod, run

pytestmark = pytest.mark.root


def mounted(name: str, script: str, volume: Object, **mount: Any) -> Object:
    """A pod that has `volume` at /v and runs `script`."""
    container = run(script, volumeMounts=[{"name": "v", "mountPath": "/v", **mount}])
    return pod(name, container, volumes=[{"name": "v", **volume}])


SECRET = named("Secret", "hidden", stringData={"key": "a secret"})
CONFIG = named("ConfigMap", "settings", data={"color": "blue", "size": "big"})
FIELDS: list[Object] = [
    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
    {
        "path": "limit",
        "resourceFieldRef": {"containerName": "main", "resource": "limits.memory", "divisor": "1Mi"},
    },
]
PROJECTED: list[Object] = [
    {"secret": {"name": "hidden"}},
    {"configMap": {"name": "settings", "items": [{"key": "color", "path": "deep/color"}]}},
    {"downwardAPI": {"items": FIELDS[:1]}},
    {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
]

PODS: dict[str, tuple[str, Object, Object, str | None]] = {
    "v-empty": ("echo x >/v/x; stat -c %a /v; cat /v/x", {"emptyDir": {}}, {}, "777\nx\n"),
    "v-memory": (
        "echo x >/v/x; awk '$2 == \"/v\" {print $3}' /proc/mounts; df -k /v | awk 'END {print $2}'",
        {"emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        {},
        "tmpfs\n8192\n",
    ),
    "v-config": (
        "cat /v/color; (echo x >/v/y) 2>/dev/null || echo no",
        {"configMap": {"name": "settings"}},
        {},
        "blueno\n",
    ),
    "v-secret": (
        "cat /v/key; stat -Lc %a /v/key",
        {"secret": {"secretName": "hidden", "defaultMode": 0o400}},
        {},
        "a secret400\n",
    ),
    "v-projected": (
        "cat /v/key /v/deep/color /v/labels; cut -d. -f1 /v/token | base64 -d 2>/dev/null | grep -o RS256",
        {"projected": {"sources": PROJECTED}},
        {},
        'a secretblueapp="v-projected"RS256\n',
    ),
    "v-path": ("cat /v; echo", {"hostPath": {"path": "/etc/hostname", "type": "File"}}, {}, None),
    "v-read-only": (
        "(echo x >/v/x) 2>&1 | grep -o 'Read-only file system'",
        {"emptyDir": {}},
        {"readOnly": True},
        "Read-only file system\n",
    ),
    "v-recursive": (
        "(echo x >/v/x) 2>&1 | grep -o 'Read-only file system'",
        {"emptyDir": {}},
        {"readOnly": True, "recursiveReadOnly": "Enabled"},
        "Read-only file system\n",
    ),
    "v-sub-path": ("cat /v", {"configMap": {"name": "settings"}}, {"subPath": "size"}, "big"),
    "v-sub-expression": ("ls -d /v; touch /v/x", {"emptyDir": {}}, {"subPathExpr": "a-$(HOME_NAME)"}, "/v\n"),
    "v-image": (
        "ls /v/bin/busybox; (echo x >/v/x) 2>&1 | grep -o 'Read-only file system'",
        {"image": {"reference": BUSYBOX}},
        {},
        "/v/bin/busybox\nRead-only file system\n",
    ),
    "v-image-sub-path": (
        "cat /v/passwd | head -n1",
        {"image": {"reference": BUSYBOX}},
        {"subPath": "etc"},
        "root:x:0:0:root:/root:/bin/sh\n",
    ),
}


def pods() -> list[Object]:
    made = []
    for name, (script, volume, mount, _) in PODS.items():
        made.append(mounted(name, script, volume, **mount))
        made[-1]["spec"]["containers"][0]["env"] = [{"name": "HOME_NAME", "value": "home"}]
    return made


@needs(CONFIG, SECRET, *pods())
@pytest.mark.parametrize("name", PODS)
def test_a_volume_has_what_it_should(kube: Kube, name: str) -> None:
    expected = PODS[name][3]
    output = kube.succeeded(name)
    assert output == expected if expected is not None else output.strip()


@needs(mounted("v-downward", "cat /v/labels; echo; cat /v/limit", {"downwardAPI": {"items": FIELDS}}))
def test_the_downward_api_has_labels_and_limits(kube: Kube) -> None:
    labels, limit = kube.succeeded("v-downward").split()
    assert labels == 'app="v-downward"'
    assert int(limit) > 0  # no limit: what the node can give


@needs(
    named("ConfigMap", "changing", data={"color": "blue"}),
    mounted("v-changing", STAY, {"configMap": {"name": "changing"}}),
)
@pytest.mark.long
def test_a_changed_config_map_arrives_in_a_running_pod(kube: Kube) -> None:
    """The kubelet looks for changes once a minute."""
    kube.ready("v-changing")
    kube.kubectl.apply(named("ConfigMap", "changing", data={"color": "red"}))
    kube.until(lambda: kube.sh("v-changing", "cat /v/color") == "red", "the change", timeout=150)


SLAVE = {"hostPath": {"path": "/var/propagated", "type": "DirectoryOrCreate"}}


def privileged(made: Object) -> Object:
    made["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    return made


@needs(
    privileged(
        mounted(
            "v-bidirectional",
            f"mkdir -p /v/m; mount -t tmpfs none /v/m; touch /v/m/x; {STAY}",
            SLAVE,
            mountPropagation="Bidirectional",
        )
    ),
    mounted(
        "v-receiving",
        "until [ -e /v/m/x ]; do sleep 0.1; done; umount /v/m 2>/dev/null; true",
        SLAVE,
        mountPropagation="HostToContainer",
    ),
)
def test_mounts_propagate_where_asked(kube: Kube) -> None:
    kube.succeeded("v-receiving")


@needs(
    pod(
        "v-missing",
        run("true", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "hostPath": {"path": "/no/such/folder", "type": "Directory"}}],
    )
)
def test_a_missing_host_path_is_named(kube: Kube) -> None:
    kube.wait_described("v-missing", "hostPath type check failed: /no/such/folder is not a directory")
