"""Several containers in a pod: init, sidecars, shared namespaces."""

from __future__ import annotations

import pytest

from tests.e2e.cluster.kube import Kube, container, has_ended
from tests.e2e.cluster.manifests import STAY, Object, needs, pod, run

pytestmark = pytest.mark.root

SHARED: Object = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
VOLUMES = [{"name": "shared", "emptyDir": {}}]


@needs(
    pod(
        "init",
        run("cat /shared/order", **SHARED),
        initContainers=[
            run("echo first >>/shared/order", "first", **SHARED),
            run("sleep 0.5; echo second >>/shared/order", "second", **SHARED),
        ],
        volumes=VOLUMES,
    )
)
def test_init_containers_run_one_after_the_other(kube: Kube) -> None:
    assert kube.succeeded("init") == "first\nsecond\n"


@needs(
    pod(
        "init-retried",
        run("true"),
        initContainers=[run("[ -e /shared/been ] && exit 0; touch /shared/been; exit 1", "init", **SHARED)],
        restartPolicy="OnFailure",
        volumes=VOLUMES,
    ),
    pod("init-failed", run("true"), initContainers=[run("exit 5", "init")]),
)
def test_a_failed_init_container_is_tried_again_or_fails_the_pod(kube: Kube) -> None:
    assert container(kube.wait("init-retried", has_ended), "init")["restartCount"] == 1
    failed = kube.wait("init-failed", has_ended)
    assert failed["status"]["phase"] == "Failed"
    assert container(failed, "init")["state"]["terminated"]["exitCode"] == 5
    assert not container(failed)["state"].get("running")


@needs(
    pod(
        "sidecar",
        run("cat /shared/side; sleep 1", **SHARED),
        initContainers=[
            run(
                f"echo beside >/shared/side; {STAY}",
                "side",
                restartPolicy="Always",
                startupProbe={"exec": {"command": ["test", "-e", "/shared/side"]}, "periodSeconds": 1},
                **SHARED,
            )
        ],
        volumes=VOLUMES,
    )
)
def test_a_sidecar_is_there_before_and_ends_after(kube: Kube) -> None:
    assert kube.wait("sidecar", has_ended)["status"]["phase"] == "Succeeded"
    assert kube.kubectl.run("logs", "sidecar", "-c", "main") == "beside\n"
    main, side = (container(kube.pods["sidecar"], name)["state"]["terminated"] for name in ("main", "side"))
    assert main["finishedAt"] <= side["finishedAt"]
    assert side["exitCode"] == 0


@needs(
    pod(
        "together",
        run("until pgrep -f 'sleep 98765' >/dev/null; do sleep 0.1; done; hostname"),
        run("exec sleep 98765", "other"),
        shareProcessNamespace=True,
    )
)
def test_a_shared_process_namespace_is_shared(kube: Kube) -> None:
    kube.wait("together", lambda pod: container(pod)["state"].get("terminated"))
    assert kube.kubectl.run("logs", "together", "-c", "main") == "together\n"
    assert "sleep 98765" in kube.sh("together", "ps", "other")


@needs(
    pod(
        "network",
        run("exec httpd -f -p 8080 -h /etc", "server"),
        run("until wget -q -O - http://127.0.0.1:8080/hostname; do sleep 0.1; done"),
    )
)
def test_containers_of_a_pod_share_its_network(kube: Kube) -> None:
    kube.wait("network", lambda pod: container(pod)["state"].get("terminated"))
    assert kube.kubectl.run("logs", "network", "-c", "main") == "network\n"
