"""What the controllers make of pods: Deployment, Job, CronJob, StatefulSet, DaemonSet."""

from __future__ import annotations

import pytest

from tests.e2e.cluster.kube import Kube, container, has_ended, is_ready
from tests.e2e.cluster.manifests import STAY, WEB, Object, named, needs, pod, run, workload
from tests.e2e.cluster.test_pod_options import answers
from tests.e2e.cluster.test_talk import get

pytestmark = pytest.mark.root

QUICK = {"periodSeconds": 1, "exec": {"command": ["true"]}}


def version(number: int) -> Object:
    main = run(
        f"echo version {number}; {STAY}",
        env=[{"name": "VERSION", "value": str(number)}],
        readinessProbe=QUICK,
    )
    strategy = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return workload("Deployment", "rolling", main, spec={"replicas": 3, "strategy": strategy})


def versions(kube: Kube) -> set[str]:
    pods = kube.wait_many("rolling", 3, is_ready)
    return {pod["spec"]["containers"][0]["env"][0]["value"] for pod in pods}


@needs(version(1))
def test_a_deployment_rolls_out_and_back(kube: Kube) -> None:
    kube.kubectl.run("rollout", "status", "deployment/rolling", "--timeout=60s")
    kube.kubectl.apply(version(2))
    kube.kubectl.run("rollout", "status", "deployment/rolling", "--timeout=60s")
    assert versions(kube) == {"2"}
    kube.kubectl.run("rollout", "undo", "deployment/rolling")
    kube.kubectl.run("rollout", "status", "deployment/rolling", "--timeout=60s")
    assert versions(kube) == {"1"}
    kube.kubectl.run("scale", "deployment/rolling", "--replicas=1")
    kube.wait_many("rolling", 1, is_ready)


JOB = {"completions": 4, "parallelism": 2, "completionMode": "Indexed"}


@needs(
    workload(
        "Job",
        "counting",
        run("echo part $JOB_COMPLETION_INDEX"),
        spec=JOB,
        version="batch/v1",
        restartPolicy="Never",
    ),
    workload(
        "Job",
        "retrying",
        run(
            "[ -e /keep/been ] && exit 0; touch /keep/been; exit 1",
            volumeMounts=[{"name": "keep", "mountPath": "/keep"}],
        ),
        spec={},
        version="batch/v1",
        restartPolicy="OnFailure",
        volumes=[{"name": "keep", "emptyDir": {}}],
    ),
    workload(
        "Job", "failing", run("exit 3"), spec={"backoffLimit": 1}, version="batch/v1", restartPolicy="Never"
    ),
)
def test_jobs_run_to_completion(kube: Kube) -> None:
    kube.kubectl.run("wait", "--for=condition=complete", "job/counting", "job/retrying", "--timeout=60s")
    pods = kube.wait_many("counting", 4, has_ended)
    said = {kube.kubectl.run("logs", pod["metadata"]["name"]) for pod in pods}
    assert said == {f"part {number}\n" for number in range(4)}
    assert container(kube.wait_many("retrying", 1, has_ended)[0])["restartCount"] == 1
    kube.kubectl.run("wait", "--for=condition=failed", "job/failing", "--timeout=60s")


SET = {"replicas": 3, "serviceName": "ordered"}


@needs(
    named(
        "Service",
        "ordered",
        spec={"clusterIP": "None", "selector": {"app": "ordered"}, "ports": [{"port": 80}]},
    ),
    workload("StatefulSet", "ordered", run(f"hostname; {STAY}"), spec=SET),
)
def test_a_stateful_set_has_pods_with_names_that_stay(kube: Kube) -> None:
    pods = sorted(kube.wait_many("ordered", 3, is_ready), key=lambda pod: str(pod["metadata"]["name"]))
    assert [pod["metadata"]["name"] for pod in pods] == ["ordered-0", "ordered-1", "ordered-2"]
    started = [container(pod)["state"]["running"]["startedAt"] for pod in pods]
    assert started == sorted(started)
    uid = pods[1]["metadata"]["uid"]
    kube.kubectl.run("delete", "pod", "ordered-1", "--wait=false")
    kube.wait("ordered-1", lambda pod: pod["metadata"]["uid"] != uid and is_ready(pod))
    assert kube.kubectl.run("logs", "ordered-1") == "ordered-1\n"


@needs(workload("DaemonSet", "everywhere", run(STAY), spec={}))
def test_a_daemon_set_has_a_pod_on_the_node(kube: Kube) -> None:
    kube.kubectl.run("rollout", "status", "daemonset/everywhere", "--timeout=60s")
    uid = kube.wait_many("everywhere", 1, is_ready)[0]["metadata"]["uid"]
    kube.kubectl.run("rollout", "restart", "daemonset/everywhere")
    kube.kubectl.run("rollout", "status", "daemonset/everywhere", "--timeout=60s")
    kube.wait_many("everywhere", 1, lambda pod: is_ready(pod) and pod["metadata"]["uid"] != uid)


TICKING = {
    "schedule": "* * * * *",
    "jobTemplate": {
        "spec": {
            "template": {
                "metadata": {"labels": {"app": "ticking"}},
                "spec": {"restartPolicy": "Never", "containers": [run("echo tick")]},
            }
        }
    },
}


@needs(named("CronJob", "ticking", "batch/v1", spec=TICKING))
@pytest.mark.long
def test_a_cron_job_starts_pods(kube: Kube) -> None:
    kube.until(
        lambda: any("ticking" in name and has_ended(pod) for name, pod in kube.pods.items()), "a tick", 150
    )
    name = next(name for name in kube.pods if "ticking" in name)
    assert kube.kubectl.run("logs", name) == "tick\n"


SERVER = run(WEB, readinessProbe={"periodSeconds": 1, "tcpSocket": {"port": 80}})


@needs(
    workload("Deployment", "served", SERVER, spec={"replicas": 2}),
    named(
        "Service",
        "served",
        spec={"type": "NodePort", "selector": {"app": "served"}, "ports": [{"port": 8000, "targetPort": 80}]},
    ),
    pod("asking", run(STAY)),
)
def test_pods_reach_each_other_and_services(kube: Kube) -> None:
    """By kube-proxy's nftables beside those of the pods' network."""
    served = kube.wait_many("served", 2, is_ready)
    kube.ready("asking")
    names = {f"{pod['metadata']['name']}\n" for pod in served}
    assert {kube.sh("asking", f"wget -q -O - http://{pod['status']['podIP']}/") for pod in served} == names
    service = kube.kubectl.json("get", "service", "served")["spec"]
    port = service["ports"][0]["nodePort"]
    kube.until(lambda: answers(f"{kube.cluster.address}:{port}"), "the service to be known")
    every = f"for n in $(seq 20); do wget -q -O - http://{service['clusterIP']}:8000/; done"
    assert {f"{line}\n" for line in kube.sh("asking", every).splitlines()} == names
    assert get(f"{kube.cluster.address}:{port}").decode() in names
