"""Records: what a crash leaves on disk is either nothing or says what to undo."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from phantom_cri.codec import DecodeError, replace
from phantom_cri.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.records import Records, drop_unfinished, stored_containers, stored_pod
from phantom_cri.model import (
    ContainerConfig,
    ContainerMetadata,
    ContainerRecord,
    ImageSpec,
    SandboxConfig,
    SandboxMetadata,
    SandboxRecord,
)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(str(tmp_path))


def make_pod(records: Records, sandbox_id: str, name: str = "web") -> Pod:
    os.makedirs(os.path.join(records.pod_folder(sandbox_id), "containers"))
    config = SandboxConfig(metadata=SandboxMetadata(name=name, uid="u", namespace="default"))
    return Pod(SandboxRecord(id=sandbox_id, config=config, created_at=1), fragment=None)


def make_container(pod: Pod, container_id: str) -> Container:
    config = ContainerConfig(metadata=ContainerMetadata(name="main"), image=ImageSpec(image="busybox"))
    return Container(
        ContainerRecord(
            id=container_id,
            sandbox_id=pod.id,
            config=config,
            image_id="sha256:0",
            image_ref="",
            image_name="",
            created_at=1,
        )
    )


def test_unknown_ids_are_not_found_by_kind_and_id(records: Records) -> None:
    with pytest.raises(NotFound, match="pod sandbox 'nope'"):
        records.pod("nope")
    with pytest.raises(NotFound, match="container 'nope'"):
        records.container("nope")
    assert records.find_pod("") is None


def test_a_unique_prefix_is_enough_and_an_ambiguous_one_is_refused(records: Records) -> None:
    for sandbox_id in ("ab1", "ab2"):
        pod = make_pod(records, sandbox_id, name=sandbox_id)
        records.intend_pod(pod.record)
        records.commit_pod(pod)
    assert records.pod("ab1").id == "ab1"
    with pytest.raises(InvalidArgument, match="ambiguous: 2"):
        records.pod("ab")


def test_a_pod_name_is_held_by_one_and_free_after_release(records: Records) -> None:
    metadata = SandboxMetadata(name="web", uid="u", namespace="default")
    records.reserve(metadata, "first")
    with pytest.raises(AlreadyExists, match=r"name 'web'.*taken by pod sandbox first"):
        records.reserve(metadata, "second")
    records.release(metadata, "second")  # not the holder: no effect
    with pytest.raises(AlreadyExists):
        records.reserve(metadata, "second")
    records.release(metadata, "first")
    records.reserve(metadata, "second")


def test_an_intended_pod_is_stored_as_unfinished_until_committed(records: Records) -> None:
    pod = make_pod(records, "p1")
    folder = records.pod_folder("p1")
    assert stored_pod(folder) is None
    records.intend_pod(pod.record)
    assert stored_pod(folder) == (pod.record, False)
    records.commit_pod(pod)
    assert stored_pod(folder) == (pod.record, True)
    assert records.find_pod("p1") is pod


def test_containers_are_stored_and_forgotten(records: Records) -> None:
    pod = make_pod(records, "p1")
    records.intend_pod(pod.record)
    records.commit_pod(pod)
    container = make_container(pod, "c1")
    records.intend_container(container.record)
    assert list(stored_containers(records.pod_folder("p1"))) == []
    records.commit_container(pod, container)
    assert list(stored_containers(records.pod_folder("p1"))) == [container.record]
    assert records.container("c1") is container
    records.forget_container(container)
    records.forget_container(container)
    assert list(stored_containers(records.pod_folder("p1"))) == []
    assert pod.containers == {}


def test_what_a_crash_left_unfinished_is_dropped_without_being_read(records: Records) -> None:
    pod = make_pod(records, "p1")
    records.intend_pod(pod.record)
    records.commit_pod(pod)
    kept, unfinished = make_container(pod, "c1"), make_container(pod, "c2")
    records.intend_container(kept.record)
    records.commit_container(pod, kept)
    records.intend_container(unfinished.record)
    folder = Path(records.pod_folder("p1")) / "containers"
    (folder / "c3.json.new").touch()
    (folder / "c1.json.12.tmp").write_text('{"id":')
    drop_unfinished(records.pod_folder("p1"))
    assert [path.name for path in folder.iterdir()] == ["c1.json"]
    assert list(stored_containers(records.pod_folder("p1"))) == [kept.record]
    shutil.rmtree(folder)  # as a crash may leave a pod that was being removed
    drop_unfinished(records.pod_folder("p1"))
    assert list(stored_containers(records.pod_folder("p1"))) == []


def test_a_request_counts_as_sent_again_once(records: Records) -> None:
    assert not records.sent_again("p1")
    records.mark_before("p1")
    assert records.sent_again("p1")
    assert not records.sent_again("p1")


def test_a_used_pod_no_longer_counts_as_sent_again(records: Records) -> None:
    pod = make_pod(records, "p1")
    records.intend_pod(pod.record)
    records.commit_pod(pod)
    records.mark_before("p1")
    records.pod("p1")
    assert not records.sent_again("p1")


LATER = {"colour": {"deep": [1, None]}, "size": 2**70}


@pytest.fixture
def pod(records: Records) -> Pod:
    """With one container, both on disk."""
    pod = make_pod(records, "p1")
    pod.record = replace(pod.record, ips=("10.0.0.1",), cgroup_parent="/pods")
    records.intend_pod(pod.record)
    records.commit_pod(pod)
    container = make_container(pod, "c1")
    records.intend_container(container.record)
    records.commit_container(pod, container)
    return pod


def paths(records: Records) -> list[Path]:
    folder = Path(records.pod_folder("p1"))
    return [folder / "pod.json", folder / "containers" / "c1.json"]


def rewrite(path: Path, **fields: Any) -> dict[str, Any]:
    """As a daemon of a later release might have: with more of its own at each level."""
    document = json.loads(path.read_bytes())
    document["config"]["metadata"].update(LATER)
    document["config"].update(LATER)
    document.update(LATER | fields)
    path.write_text(json.dumps(document))
    return dict(document)


def taken_over(records: Records) -> Pod:
    """What a daemon makes of the folder."""
    folder = records.pod_folder("p1")
    stored = stored_pod(folder)
    assert stored is not None
    pod = Pod(stored[0], fragment=None)
    pod.containers = {one.id: Container(one) for one in stored_containers(folder)}
    return pod


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("schema", [{}, {"schema": 1}, {"schema": 2}])
def test_what_a_later_release_wrote_stays_through_every_change(
    records: Records, schema: dict[str, int]
) -> None:
    before = [rewrite(path, **schema) for path in paths(records)]
    pod = taken_over(records)
    container = pod.containers["c1"]
    records.save_pod(pod)
    records.save_container(container)
    assert [json.loads(path.read_bytes()) for path in paths(records)] == before
    pod.record = replace(pod.record, state="notready", ips=())
    container.record = replace(container.record, state="exited", exit_code=3)
    records.save_pod(pod)
    records.save_container(container)
    del before[0]["ips"]
    before[0]["state"] = "notready"
    before[1] |= {"state": "exited", "exit_code": 3}
    assert [json.loads(path.read_bytes()) for path in paths(records)] == before


@pytest.mark.usefixtures("pod")
def test_of_a_newer_schema_the_head_is_known_and_nothing_else(records: Records) -> None:
    """Fields that were there before may say something else by now."""
    pod_path, container_path = paths(records)
    rewrite(pod_path, schema=2, cgroup_parent=["of", "another", "kind"], hostname="not what it was")
    rewrite(container_path, schema=3, stop_signal={"by": "name"}, cgroup="/pods/c1", layers=["/l"])
    pod = taken_over(records)
    assert (pod.record.ips, pod.record.cgroup_parent, pod.record.hostname) == (("10.0.0.1",), "", "")
    assert pod.record.config.metadata.name == "web"
    container = pod.containers["c1"].record
    assert (container.cgroup, container.layers, container.stop_signal) == ("/pods/c1", ("/l",), "SIGTERM")
    assert pod.newer_record == "its record: it has schema 2 of a newer phantom-cri, this one knows 1"
    with pytest.raises(FailedPrecondition, match="pod sandbox p1 cannot be changed: its record"):
        pod.check_records()


@pytest.mark.usefixtures("pod")
def test_a_container_of_a_newer_schema_is_named(records: Records) -> None:
    rewrite(paths(records)[1], schema=2)
    assert taken_over(records).newer_record.startswith("container c1: it has schema 2 of a newer")


@pytest.mark.usefixtures("pod")
def test_further_fields_alone_are_no_newer_schema(records: Records) -> None:
    for path in paths(records):
        rewrite(path)
    pod = taken_over(records)
    assert pod.newer_record == pod.other_version == ""
    pod.check_records()
    pod.check_version()


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"schema":2}', b'{"schema":2,"id":1,"config":{}}'])
def test_a_damaged_record_is_no_newer_one(records: Records, text: bytes) -> None:
    pod_path, container_path = paths(records)
    container_path.write_bytes(text)
    with pytest.raises(DecodeError):
        list(stored_containers(records.pod_folder("p1")))
    pod_path.write_bytes(text)
    with pytest.raises(DecodeError):
        stored_pod(records.pod_folder("p1"))
