"""The counts of every room in a verbose Status: they follow what is there, and go back when it goes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Cri, Pod

pytestmark = pytest.mark.root


def statistics(cri: Cri) -> dict[str, Any]:
    answer = cri.runtime.Status(pb.StatusRequest(verbose=True))
    found: dict[str, Any] = json.loads(answer.info["config"])["statistics"]
    return found


def test_counts_follow_pods_containers_and_urls(cri: Cri, pod: Pod) -> None:
    before = statistics(cri)
    assert (before["records"]["pods"], before["records"]["names"]) == (1, 1)
    assert before["records"]["containers"] == 0
    container = pod.start(["sleep", "1000"])
    request = pb.ExecRequest(container_id=container.id, cmd=["true"], stdout=True)
    cri.runtime.Exec(request)
    now = statistics(cri)
    assert now["records"]["containers"] == 1
    assert now["images"]["holds"] > before["images"]["holds"]
    assert now["streaming"]["urls"] == before["streaming"]["urls"] + 1
    assert (now["fragments"]["connections"], now["fragments"]["requests"]) == (1, 0)
    assert now["policy"]["kept"] >= 1
    assert now["network"]["attachments"] >= 1


def test_counts_go_back_with_the_pod(cri: Cri, pod: Pod) -> None:
    pod.start(["sleep", "1000"])
    holds = statistics(cri)["images"]["holds"]
    pod.remove()
    now = statistics(cri)
    assert (now["records"]["pods"], now["records"]["containers"], now["records"]["names"]) == (0, 0, 0)
    assert now["fragments"] == dict.fromkeys(now["fragments"], 0)
    assert now["images"]["holds"] < holds
    wait_until(lambda: statistics(cri)["network"]["leaving"] == 0, "the pod's link to go")


def test_an_exec_under_way_is_counted(cri: Cri, pod: Pod) -> None:
    container = pod.start(["sleep", "1000"])
    request = pb.ExecSyncRequest(container_id=container.id, cmd=["sleep", "1000"], timeout=20)
    call = cri.runtime.ExecSync.future(request)
    wait_until(lambda: statistics(cri)["fragments"]["execs"] == 1, "the exec to be counted")
    call.cancel()
    wait_until(lambda: statistics(cri)["fragments"]["execs"] == 0, "the exec to be gone")
