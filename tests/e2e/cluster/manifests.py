"""Manifests of the objects that the tests apply, as short as they can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from harness.cluster.cluster import BUSYBOX

Object = dict[str, Any]
Test = TypeVar("Test", bound=Callable[..., object])

STAY = "trap 'exit 0' TERM; sleep 100000 & wait"
"""A script that runs until it is told to end."""

WEB = "mkdir -p /www; hostname >/www/index.html; exec httpd -f -p 80 -h /www"


def run(script: str, name: str = "main", **more: Any) -> Object:
    """A container with a shell script; `more` are fields of the container."""
    return {"name": name, "image": BUSYBOX, "command": ["sh", "-c", script], **more}


def pod_template(name: str, *containers: Object, **spec: Any) -> Object:
    """Metadata and spec; `metadata` among `spec` is merged into the metadata."""
    metadata = {"labels": {"app": name}, **spec.pop("metadata", {})}
    defaults = {"terminationGracePeriodSeconds": 5, "automountServiceAccountToken": False}
    return {"metadata": metadata, "spec": {**defaults, "containers": list(containers), **spec}}


def pod(name: str, *containers: Object, **spec: Any) -> Object:
    """A pod that is not restarted unless `spec` says so."""
    template = pod_template(name, *containers, **{"restartPolicy": "Never", **spec})
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": name, **template["metadata"]}}


def named(kind: str, name: str, version: str = "v1", **fields: Any) -> Object:
    """Any object: `named("ConfigMap", "a", data={...})`."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}


def workload(
    kind: str, name: str, *containers: Object, spec: Object, version: str = "apps/v1", **pod_spec: Any
) -> Object:
    """A Deployment, StatefulSet, DaemonSet or Job of pods that carry the label app=`name`."""
    selector = {} if kind == "Job" else {"selector": {"matchLabels": {"app": name}}}
    template = pod_template(name, *containers, **pod_spec)
    return named(kind, name, version, spec={**selector, "template": template, **spec})


def needs(*objects: Object) -> Callable[[Test], Test]:
    """Marks a test with the objects it looks at: those of all tests are applied at once, before the first."""

    def mark(test: Test) -> Test:
        test.objects = objects  # type: ignore[attr-defined]
        return test

    return mark
