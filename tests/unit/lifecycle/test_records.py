"""Records: what a crash leaves on disk is either nothing or says what to undo."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from phantom_cri.errors import AlreadyExists, InvalidArgument, NotFound
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
