"""Records of an earlier boot: what they become, and that bringing them back can be cut short anywhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from phantom_cri import codec, native
from phantom_cri.daemon import reboot
from phantom_cri.errors import PhantomError
from phantom_cri.lifecycle.records import (
    AnyRecord,
    Records,
    read_container,
    read_pod,
    stored_containers,
    stored_pod,
)
from phantom_cri.model import ContainerRecord, ProcessRef, SandboxRecord
from tests.unit.lifecycle.test_record_file import CONTAINER, POD

PROCESS = ProcessRef(pid=1, start_time=1)
READY = codec.replace(POD, fragment=PROCESS, ips=("10.0.0.1",))
RUNNING = codec.replace(
    CONTAINER,
    id="c2",
    state="running",
    exit_code=0,
    process=PROCESS,
    started_at=1 << 62,
    reason="",
    message="",
)
CREATED = codec.replace(CONTAINER, id="c3", state="created", exit_code=0)
STORED = (RUNNING, READY, CONTAINER, CREATED)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    records = Records(str(tmp_path))
    os.mkdir(records.folder)
    return records


def found(records: Records) -> dict[str, AnyRecord]:
    known: dict[str, AnyRecord] = {}
    for name in os.listdir(records.folder):
        folder = records.pod_folder(name)
        stored = stored_pod(folder) if os.path.isdir(folder) else None
        if stored is not None:
            assert stored[1], "its making was finished"
            known[name] = stored[0]
            known |= {one.id: one for one in stored_containers(folder)}
    return known


def ended() -> dict[str, AnyRecord]:
    pod = codec.replace(READY, state="notready", fragment=None, ips=())
    return {"p1": pod, "c1": CONTAINER, "c3": CREATED}


def check_all(records: Records) -> None:
    known = found(records)
    ran = known.pop("c2")
    assert known == ended()
    assert isinstance(ran, ContainerRecord)
    assert (ran.state, ran.exit_code, ran.reason, ran.process) == ("exited", 255, "Unknown", None)
    assert ran.finished_at == RUNNING.started_at, "a wrong clock makes no end before the start"


def test_what_they_become(records: Records) -> None:
    assert [pod.id for pod in reboot.bring_back(records, lambda: STORED)] == ["p1"]
    check_all(records)


def test_a_marked_folder_is_the_truth(records: Records) -> None:
    reboot.set_mark(records)
    assert reboot.bring_back(records, lambda: pytest.fail("nothing is read")) == []
    assert found(records) == {}


def test_a_container_of_a_pod_that_is_not_known_is_nobodys(records: Records) -> None:
    assert reboot.bring_back(records, lambda: [CONTAINER]) == []
    assert found(records) == {}


@pytest.mark.parametrize("mark", ["", "\n", "11111111-2222-3333-4444-555555555555", "ü" * 100])
def test_another_boots_folder_is_emptied(records: Records, mark: str) -> None:
    stale = codec.replace(POD, id="p2", fragment=PROCESS)
    os.makedirs(os.path.join(records.pod_folder("p2"), "containers"))
    records.intend_pod(stale)
    Path(records.folder, "left.tmp").touch()
    Path(records.folder, reboot.MARK).write_text(mark)
    reboot.bring_back(records, lambda: STORED)
    check_all(records)
    assert os.listdir(records.folder) == ["p1"]


def test_what_state_says_wins_where_it_has_no_mark(records: Records) -> None:
    """As after an update from a version that made none."""
    live = codec.replace(READY, created_at=5)
    os.makedirs(os.path.join(records.pod_folder("p1"), "containers"))
    codec.write_atomically(os.path.join(records.pod_folder("p1"), "pod.json"), codec.to_json(live))
    assert reboot.bring_back(records, lambda: STORED) == []
    assert found(records) == {"p1": live}


def test_cut_short_at_any_write_it_is_finished_the_next_time(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = codec.write_atomically
    for allowed in range(5):
        shutil.rmtree(records.folder)
        os.mkdir(records.folder)
        left = allowed

        def cut(path: str, content: bytes) -> None:
            nonlocal left
            if not left:
                raise OSError(28, "No space left on device", path)
            left -= 1
            real(path, content)

        monkeypatch.setattr(codec, "write_atomically", cut)
        if allowed < len(STORED):
            with pytest.raises(PhantomError, match=r"restore records: .*ENOSPC"):
                reboot.bring_back(records, lambda: STORED)
        monkeypatch.setattr(codec, "write_atomically", real)
        reboot.bring_back(records, lambda: STORED)
        check_all(records)


def test_the_mark_is_this_boots(records: Records) -> None:
    reboot.set_mark(records)
    assert Path(records.folder, reboot.MARK).read_text() == native.boot_id()
    assert isinstance(reboot.ended_pod(READY), SandboxRecord)


def test_records_of_a_newer_schema_come_back_with_all_they_say(records: Records) -> None:
    """What became of it is told in the head; the rest waits for the release that wrote it."""
    strange = {"schema": 2, "later": [1], "user": {"of": "another kind"}, "hostname": ["too"]}
    ready, ran = (json.dumps(json.loads(codec.to_json(one)) | strange).encode() for one in (READY, RUNNING))
    reboot.bring_back(records, lambda: [read_pod(ready), read_container(ran)])
    folder = Path(records.pod_folder("p1"))
    pod = json.loads((folder / "pod.json").read_bytes())
    container = json.loads((folder / "containers" / "c2.json").read_bytes())
    assert pod.items() >= (strange | {"state": "notready"}).items() and not {"ips", "fragment"} & pod.keys()
    assert container.items() >= (strange | {"state": "exited", "exit_code": 255, "reason": "Unknown"}).items()
