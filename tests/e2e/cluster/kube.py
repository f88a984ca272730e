"""A cluster as the tests see it: kubectl, and a watch on all pods so that nobody polls."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import kubernetes

from harness.cluster.cluster import Cluster
from harness.waiting import PATIENCE, wait_until

Pod = dict[str, Any]


class Kube:
    """Follows the pods of namespace `default`; `runtime` is the runtime's name."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.runtime = cluster.name
        self.kubectl = cluster.kubectl
        self.pods: dict[str, Pod] = {}
        self._changed = threading.Condition()
        self._closing = False
        client: Any = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))
        self._api = kubernetes.client.CoreV1Api(client)
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while not self._closing:
            # The server ends a watch now and then, and for good when the cluster ends.
            with contextlib.suppress(Exception):
                stream = kubernetes.watch.Watch().stream(self._api.list_namespaced_pod, "default")
                for event in stream:
                    self._take(event["type"], event["raw_object"])
            time.sleep(0.1)

    def _take(self, kind: str, pod: Pod) -> None:
        with self._changed:
            if kind == "DELETED":
                self.pods.pop(pod["metadata"]["name"], None)
            else:
                self.pods[pod["metadata"]["name"]] = pod
            self._changed.notify_all()

    def close(self) -> None:
        self._closing = True

    def wait(self, name: str, check: Callable[[Pod], object], timeout: float = 60) -> Pod:
        """Waits until `check` is true of pod `name`, and answers it; AssertionError with its description."""
        if not self._wait(lambda: name in self.pods and check(self.pods[name]), timeout):
            raise AssertionError(f"pod {name} does not get there:\n{self.describe(name)}")
        return self.pods[name]

    def wait_gone(self, *names: str, timeout: float = 60) -> None:
        if not self._wait(lambda: not any(name in self.pods for name in names), timeout):
            raise AssertionError(f"still there: {self.pods.keys() & set(names)}")

    def wait_many(
        self, label: str, count: int, check: Callable[[Pod], object], timeout: float = 60
    ) -> list[Pod]:
        """Waits until exactly `count` pods carry app=`label` and `check` is true of each; answers them."""

        def found() -> list[Pod]:
            return [pod for pod in self.pods.values() if pod["metadata"]["labels"].get("app") == label]

        if not self._wait(lambda: len(found()) == count and all(map(check, found())), timeout):
            raise AssertionError(f"not {count} such pods of {label}: {[pod['status'] for pod in found()]}")
        return found()

    def _wait(self, check: Callable[[], object], timeout: float) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(lambda: bool(check()), timeout * PATIENCE))

    def ready(self, name: str) -> Pod:
        return self.wait(name, is_ready)

    def succeeded(self, name: str) -> str:
        """Waits for a pod to end; answers its log. AssertionError if it has failed."""
        pod = self.wait(name, has_ended)
        log = self.kubectl.run("logs", name)
        assert pod["status"]["phase"] == "Succeeded", f"{log}\n{self.describe(name)}"
        return log

    def wait_described(self, name: str, text: str, timeout: float = 60) -> None:
        """Waits until `kubectl describe pod` shows `text`."""
        with contextlib.suppress(TimeoutError):
            return self.until(lambda: text in self.describe(name), text, timeout)
        raise AssertionError(f"{text!r} is not in:\n{self.describe(name)}")

    def until(self, check: Callable[[], object], what: str, timeout: float = 60) -> None:
        """For what is not seen in a pod's status: asks again and again."""
        wait_until(check, what, timeout, interval=0.5)

    def describe(self, name: str) -> str:
        return self.kubectl.run("describe", "pod", name)

    def sh(self, name: str, script: str, container: str = "main") -> str:
        """stdout of a script in a running pod."""
        return self.kubectl.run("exec", name, "-c", container, "--", "sh", "-c", script)


def is_ready(pod: Pod) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def has_ended(pod: Pod) -> bool:
    return pod["status"]["phase"] in ("Succeeded", "Failed")


def container(pod: Pod, name: str = "main") -> dict[str, Any]:
    """The status of a container; empty until there is one."""
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    found = [one for kind in kinds for one in pod["status"].get(kind, []) if one["name"] == name]
    return found[0] if found else {"state": {}, "lastState": {}, "restartCount": 0, "ready": False}


def waiting_reason(pod: Pod, name: str = "main") -> str:
    return str(container(pod, name)["state"].get("waiting", {}).get("reason", ""))
