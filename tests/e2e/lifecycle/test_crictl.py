"""A day of a pod by a real crictl, from the pull to the last removal."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.crictl import Crictl, CrictlError
from harness.image import ImageConfig, build_image
from harness.registry import Registry
from harness.waiting import wait_until
from phantom_cri import __version__
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Cri

pytestmark = pytest.mark.root

SCRIPT = "trap 'exit 3' TERM; echo to stdout; echo to stderr >&2; while :; do sleep 0.05; done"


@pytest.fixture
def image(cri: Cri, registry: Registry, tmp_path: Path) -> Iterator[str]:
    """An image of this test's own, which it may remove; afterwards it is gone from the daemon."""
    config = ImageConfig(entrypoint=["sh", "-c"], cmd=["true"], user="www-data", working_dir="/var")
    build_image(tmp_path / "layout", config, {"mark": uuid.uuid4().hex})
    reference = registry.push(tmp_path / "layout", "crictl")
    yield reference
    cri.images.RemoveImage(pb.RemoveImageRequest(image=pb.ImageSpec(image=reference)))


def pod_config(tmp_path: Path) -> dict[str, Any]:
    metadata = {"name": "day", "namespace": "tests", "uid": str(uuid.uuid4()), "attempt": 1}
    return {"metadata": metadata, "log_directory": str(tmp_path), "labels": {"app": "day"}}


def container_config(image: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "work"},
        "image": {"image": image},
        "args": [SCRIPT],
        "log_path": "work.log",
        "linux": {"security_context": {"namespace_options": {"pid": 1}}},
    }


def test_version_and_info(crictl: Crictl) -> None:
    version = crictl.run("version")
    assert "RuntimeName:  phantom" in version
    assert f"RuntimeVersion:  {__version__}" in version
    told = crictl.json("info")
    conditions = {one["type"]: one["status"] for one in told["status"]["conditions"]}
    assert conditions["RuntimeReady"] is True
    assert conditions["NetworkReady"] is True
    assert told["runtimeHandlers"][0].get("name", "") == ""
    assert "CGROUPFS" in crictl.run("runtime-config").upper()


def test_a_pods_day(crictl: Crictl, cri: Cri, image: str, tmp_path: Path) -> None:
    crictl.run("pull", image)
    config = pod_config(tmp_path)
    pod = crictl.run_pod(config)
    container = crictl.create(pod, container_config(image), config)
    (listed,) = crictl.json("ps", "--all")["containers"]
    assert (listed["id"], listed["state"], listed["podSandboxId"]) == (container, "CONTAINER_CREATED", pod)
    assert crictl.run("start", container).strip() == container
    assert not crictl.json("ps", "--label", "app=day", "--all")["containers"], "the label is the pod's"
    inspect_while_it_runs(crictl, pod, container, image, tmp_path)
    crictl.run("stop", "--timeout", "20", container)
    status = crictl.json("inspect", container)["status"]
    assert (status["state"], status["exitCode"], status["reason"]) == ("CONTAINER_EXITED", 3, "Error")
    crictl.run("rm", "--keep-logs", container)
    assert not crictl.json("ps", "--all")["containers"]
    crictl.run("stopp", pod)
    assert crictl.json("inspectp", pod)["status"]["state"] == "SANDBOX_NOTREADY"
    crictl.run("rmp", pod)
    assert not crictl.json("pods")["items"]
    assert (tmp_path / "work.log").exists(), "its log is the caller's"


def inspect_while_it_runs(crictl: Crictl, pod: str, container: str, image: str, logs: Path) -> None:
    (listed,) = crictl.json("ps")["containers"]
    assert listed["state"] == "CONTAINER_RUNNING"
    assert crictl.run("ps", "--quiet", "--pod", pod[:13]).split() == [container]
    wait_until(lambda: "stdout" in crictl.run("logs", container), "the log")
    assert crictl.run("logs", container).splitlines() == ["to stdout"], "crictl sends the other to its stderr"
    answer = crictl.run("exec", "--sync", container, "sh", "-c", "id -un; pwd")
    assert answer.split() == ["www-data", "/var"]
    with pytest.raises(CrictlError, match="exit"):
        crictl.run("exec", "--sync", container, "false")
    inspected = crictl.json("inspect", container)
    status = inspected["status"]
    assert status["image"]["userSpecifiedImage"] in ("", image)
    assert status["logPath"] == str(logs / "work.log")
    assert inspected["info"]["pid"] > 1
    sandbox = crictl.json("inspectp", pod)
    assert sandbox["status"]["network"]["ip"]
    assert sandbox["info"]


def test_images(crictl: Crictl, image: str) -> None:
    crictl.run("pull", image)
    (listed,) = crictl.json("images", image)["images"]
    assert listed["repoTags"] == [image]
    assert int(listed["size"]) > 1 << 20
    assert listed["username"] == "www-data"
    inspected = crictl.json("inspecti", image)
    assert inspected["status"]["id"] == listed["id"]
    assert inspected["info"]["imageSpec"]["config"]["User"] == "www-data"
    usage = crictl.json("imagefsinfo")["status"]["imageFilesystems"][0]
    assert int(usage["usedBytes"]["value"]) > 1 << 20
    assert Path(usage["fsId"]["mountpoint"]).is_dir()
    crictl.run("rmi", image)
    assert not crictl.json("images", image)["images"]
    with pytest.raises(CrictlError, match="no such image"):
        crictl.run("inspecti", image)


def test_an_image_in_use_may_be_removed_and_its_container_runs_on(
    crictl: Crictl, cri: Cri, image: str, tmp_path: Path
) -> None:
    crictl.run("pull", image)
    config = pod_config(tmp_path)
    pod = crictl.run_pod(config)
    container = crictl.create(pod, container_config(image), config)
    crictl.run("rmi", image)
    crictl.run("start", container)
    assert crictl.run("exec", "--sync", container, "cat", "/mark")
    with pytest.raises(CrictlError, match="not found"):
        crictl.create(pod, {**container_config(image), "metadata": {"name": "late"}}, config)


def test_refusals_reach_the_user(crictl: Crictl, cri: Cri, tmp_path: Path) -> None:
    with pytest.raises(CrictlError, match="NotFound"):
        crictl.run("start", "no-such-container")
    with pytest.raises(CrictlError, match="no handler 'fast'"):
        crictl.run_pod(pod_config(tmp_path), handler="fast")
    config = pod_config(tmp_path)
    pod = crictl.run_pod(config)
    with pytest.raises(CrictlError, match=f"taken by pod sandbox {pod}"):
        crictl.run_pod(config)
    with pytest.raises(CrictlError, match="no-such-image"):
        crictl.create(pod, container_config("no-such-image"), config)


def test_update(crictl: Crictl, cri: Cri, image: str, tmp_path: Path) -> None:
    crictl.run("pull", image)
    config = pod_config(tmp_path)
    pod = crictl.run_pod(config)
    container = crictl.create(pod, container_config(image), config)
    crictl.run("start", container)
    crictl.run("update", "--memory", str(64 << 20), container)
    resources = crictl.json("inspect", container)["status"]["resources"]["linux"]
    assert int(resources["memoryLimitInBytes"]) == 64 << 20
