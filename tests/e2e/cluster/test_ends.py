"""How containers and pods end: restarts, hooks, grace, OOM, and what is told of it."""

from __future__ import annotations

import time

import pytest

from harness.cluster.cluster import BUSYBOX
from harness.crictl import Crictl
from tests.e2e.cluster.kube import Kube, Pod, container, has_ended, waiting_reason
from tests.e2e.cluster.manifests import STAY, needs, pod, run

pytestmark = pytest.mark.root


def ended(pod: Pod, name: str = "main") -> dict[str, object]:
    """How the container's last run ended."""
    status = container(pod, name)
    found: dict[str, object] = (
        status["state"].get("terminated") or status["lastState"].get("terminated") or {}
    )
    return found


@needs(pod("crashing", run("exit 7"), restartPolicy="Always"))
def test_a_crashing_container_is_restarted_with_back_off(kube: Kube) -> None:
    def backed_off(pod: Pod) -> bool:
        return waiting_reason(pod) == "CrashLoopBackOff" and container(pod)["restartCount"] >= 2

    assert ended(kube.wait("crashing", backed_off))["exitCode"] == 7


@needs(
    pod(
        "on-failure",
        run(
            "[ -e /keep/been ] && exit 0; touch /keep/been; exit 1",
            volumeMounts=[{"name": "keep", "mountPath": "/keep"}],
        ),
        restartPolicy="OnFailure",
        volumes=[{"name": "keep", "emptyDir": {}}],
    )
)
def test_restart_on_failure_ends_with_success(kube: Kube) -> None:
    pod = kube.wait("on-failure", has_ended)
    assert (pod["status"]["phase"], container(pod)["restartCount"]) == ("Succeeded", 1)


@needs(
    pod("message", run("printf 'last words' >/dev/termination-log; exit 2")),
    pod("message-path", run("printf elsewhere >/tmp/end; exit 2", terminationMessagePath="/tmp/end")),
    pod("message-log", run("echo from the log; exit 2", terminationMessagePolicy="FallbackToLogsOnError")),
)
def test_termination_messages_reach_the_status(kube: Kube) -> None:
    told = {name: ended(kube.wait(name, has_ended)) for name in ("message", "message-path", "message-log")}
    assert {name: (end["exitCode"], end["message"]) for name, end in told.items()} == {
        "message": (2, "last words"),
        "message-path": (2, "elsewhere"),
        "message-log": (2, "from the log\n"),
    }


@needs(pod("hungry", run("x=x; while :; do x=$x$x$x$x; done", resources={"limits": {"memory": "32Mi"}})))
def test_out_of_memory_is_told(kube: Kube) -> None:
    end = ended(kube.wait("hungry", has_ended))
    assert (end["reason"], end["exitCode"]) == ("OOMKilled", 137)


@needs(
    pod("no-program", {"name": "main", "image": BUSYBOX, "command": ["/no/such/program"]}),
    pod("no-image", {"name": "main", "image": "registry.k8s.io/nothing:1"}),
    pod("no-folder", run("true", workingDir="/etc/passwd/sub")),
)
def test_what_cannot_start_says_why(kube: Kube) -> None:
    end = ended(kube.wait("no-program", ended))
    assert (end["reason"], end["exitCode"]) == ("StartError", 128)
    assert "/no/such/program" in str(end["message"])
    assert ended(kube.wait("no-folder", ended))["reason"] == "StartError"
    kube.wait("no-image", lambda pod: waiting_reason(pod) in ("ErrImagePull", "ImagePullBackOff"))
    assert "registry.k8s.io/nothing:1" in kube.describe("no-image")


HOOKED = run(
    "while [ ! -e /log/stop ]; do sleep 0.1; done; echo main >>/log/order; exit 0",
    lifecycle={
        "postStart": {"exec": {"command": ["sh", "-c", "echo started >>/log/order"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping >>/log/order; touch /log/stop"]}},
    },
    volumeMounts=[{"name": "log", "mountPath": "/log"}],
)
FAILING_HOOK = {"postStart": {"exec": {"command": ["sh", "-c", "echo no >&2; exit 9"]}}}


@needs(
    pod(
        "hooked",
        HOOKED,
        volumes=[{"name": "log", "hostPath": {"path": "/var/hooked", "type": "DirectoryOrCreate"}}],
    ),
    pod("hook-failing", run(STAY, lifecycle=FAILING_HOOK)),
)
def test_hooks_run_after_start_and_before_the_end(kube: Kube) -> None:
    kube.ready("hooked")
    kube.kubectl.run("delete", "pod", "hooked", "--wait=false")
    kube.wait_gone("hooked")
    order = (kube.cluster.place.folder / "var/hooked/order").read_text()
    assert order.split() == ["started", "stopping", "main"]
    kube.wait("hook-failing", has_ended)
    kube.wait_described("hook-failing", "FailedPostStartHook")


@needs(
    pod(
        "graceful",
        run(
            "trap 'sleep 1; echo bye >/log/bye; exit' TERM; sleep 100000 & wait",
            volumeMounts=[{"name": "log", "mountPath": "/log"}],
        ),
        volumes=[{"name": "log", "hostPath": {"path": "/var/graceful", "type": "DirectoryOrCreate"}}],
    ),
    pod("deaf", run("trap '' TERM; while :; do sleep 1; done"), terminationGracePeriodSeconds=2),
    pod("forced", run("trap '' TERM; while :; do sleep 1; done"), terminationGracePeriodSeconds=600),
)
def test_delete_gives_grace_and_force_does_not(kube: Kube) -> None:
    for name in ("graceful", "deaf", "forced"):
        kube.ready(name)
    uids = [kube.pods[name]["metadata"]["uid"] for name in ("graceful", "deaf", "forced")]
    begin = time.monotonic()
    kube.kubectl.run("delete", "pod", "graceful", "deaf", "--wait=false")
    kube.kubectl.run("delete", "pod", "forced", "--force", "--grace-period=0")
    assert time.monotonic() - begin < 20
    kube.wait_gone("graceful", "deaf", "forced")
    assert (kube.cluster.place.folder / "var/graceful/bye").read_text() == "bye\n"

    def gone() -> bool:
        listing = Crictl(kube.cluster.runtime.endpoint, kube.cluster.folder).json("pods")
        ready = [one for one in listing["items"] if one["state"] == "SANDBOX_READY"]
        return not any(one["metadata"]["uid"] in uids for one in ready)

    kube.until(gone, "the sandboxes to end")


@needs(pod("deadline", run(STAY), activeDeadlineSeconds=3))
def test_an_active_deadline_ends_a_pod(kube: Kube) -> None:
    assert kube.wait("deadline", has_ended)["status"]["reason"] == "DeadlineExceeded"
