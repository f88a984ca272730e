"""The file that outlives the machine: whole or not at all, and never silently less than it was."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from phantom_cri.codec import NewerSchema, replace
from phantom_cri.lifecycle.record_file import SCHEMA, RecordFile
from phantom_cri.lifecycle.records import AnyRecord
from phantom_cri.model import (
    ContainerConfig,
    ContainerMetadata,
    ContainerRecord,
    ImageSpec,
    SandboxConfig,
    SandboxMetadata,
    SandboxRecord,
)

POD = SandboxRecord(
    id="p1",
    config=SandboxConfig(metadata=SandboxMetadata(name="web", uid="u"), labels={"a": "ß"}),
    created_at=1,
)
CONTAINER = ContainerRecord(
    id="c1",
    sandbox_id="p1",
    config=ContainerConfig(metadata=ContainerMetadata(name="main"), image=ImageSpec(image="busybox")),
    image_id="sha256:0",
    image_ref="",
    image_name="",
    created_at=1,
    state="exited",
    exit_code=3,
)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "records")


@pytest.fixture
def file(folder: str) -> RecordFile:
    return RecordFile(folder)


def write(file: RecordFile, *records: AnyRecord, whole: bool = False) -> None:
    file.write({record.id: record for record in records}, whole=whole)


def by_id(records: list[AnyRecord]) -> dict[str, AnyRecord]:
    return {record.id: record for record in records}


def spoil(folder: str, statement: str, *values: str) -> None:
    with sqlite3.connect(f"{folder}/records.db", isolation_level=None) as db:
        db.execute(statement, values)
    db.close()


def test_without_a_file_nothing_is_known_and_nothing_is_made(file: RecordFile, folder: str) -> None:
    assert file.read() == []
    assert not os.path.exists(folder)


def test_records_come_back_in_another_daemon(file: RecordFile, folder: str) -> None:
    write(file, POD, CONTAINER)
    file.close()
    assert by_id(RecordFile(folder).read()) == {"p1": POD, "c1": CONTAINER}


def test_without_an_orderly_end_too(file: RecordFile, folder: str, tmp_path: Path) -> None:
    """A copy of the files at that moment is what a crash leaves."""
    write(file, POD)
    write(file, CONTAINER)
    shutil.copytree(folder, tmp_path / "copy")
    assert by_id(RecordFile(str(tmp_path / "copy")).read()) == {"p1": POD, "c1": CONTAINER}


def test_a_log_that_was_cut_off_loses_what_it_was_cut_off_from(
    file: RecordFile, folder: str, tmp_path: Path
) -> None:
    """Whatever the number of bytes that reached the disk: all of the transaction is there, or none of it."""
    write(file, POD)
    log = Path(folder, "records.db-wal")
    first = log.stat().st_size
    write(file, CONTAINER)
    content = log.read_bytes()
    for size in (*range(first, len(content), 997), len(content) - 1):
        copy = tmp_path / f"copy-{size}"
        shutil.copytree(folder, copy)
        os.truncate(copy / "records.db-wal", size)
        assert by_id(RecordFile(str(copy)).read()) == {"p1": POD}, size
        shutil.rmtree(copy)


def test_records_are_replaced_and_removed(file: RecordFile, folder: str) -> None:
    write(file, POD, CONTAINER)
    file.write({"p1": None, "c1": CONTAINER, "unknown": None}, whole=False)
    assert by_id(file.read()) == {"c1": CONTAINER}
    write(file, POD, whole=True)
    assert by_id(file.read()) == {"p1": POD}


@pytest.mark.parametrize("schema", [1, 2])
def test_fields_of_a_newer_daemon_are_kept(file: RecordFile, folder: str, schema: int) -> None:
    write(file, POD, CONTAINER)
    file.close()
    spoil(
        folder,
        """UPDATE records SET body = json_set(body, '$.later', 1, '$.config.further', json('{"x": [1]}'),
                                               '$.schema', json(?))""",
        str(schema),
    )
    file = RecordFile(folder)
    found = file.read()
    write(file, *(replace(one, created_at=5) for one in found), whole=True)
    assert {(record.id, record.created_at) for record in file.read()} == {("p1", 5), ("c1", 5)}
    file.close()
    with sqlite3.connect(f"{folder}/records.db") as db:
        bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM records")]
    assert [(one["later"], one["schema"], one["config"]["further"]) for one in bodies] == [
        (1, schema, {"x": [1]}),
        (1, schema, {"x": [1]}),
    ]
    assert not os.path.exists(f"{folder}.unreadable")


@pytest.mark.parametrize(
    "content", [b"", b"no database at all" * 1000, b"SQLite format 3\0" + b"\xff" * 9000]
)
def test_a_file_that_is_none(
    file: RecordFile, folder: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(folder)
    Path(folder, "records.db").write_bytes(content)
    assert file.read() == []
    write(file, POD)
    assert by_id(file.read()) == {"p1": POD}
    if content:  # an empty file is what a crash right after its making leaves
        assert "records.db cannot be read and was moved to" in caplog.text
        assert Path(f"{folder}.unreadable/records.db").read_bytes() == content


def test_spoilt_pages_do_not_take_the_rest_along(
    file: RecordFile, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    records = [CONTAINER] + [
        SandboxRecord(id=f"p{n}", config=POD.config, created_at=n, hostname="x" * 900) for n in range(200)
    ]
    write(file, *records)
    file.close()
    path = Path(folder, "records.db")
    middle = path.stat().st_size // 8192 * 4096
    with path.open("r+b") as spoilt:
        spoilt.seek(middle)
        spoilt.write(os.urandom(4096))
    file = RecordFile(folder)
    found = by_id(file.read())
    assert found.items() <= by_id(records).items(), "none is wrong"
    assert "was moved to" in caplog.text
    write(file, *found.values(), whole=True)
    assert by_id(file.read()) == found


@pytest.mark.parametrize("body", ["", "{", '{"id": 1}', "[]", '{"id": "c1", "state": "dreaming"}'])
def test_one_record_that_cannot_be_read_is_named_and_the_others_are_there(
    file: RecordFile, folder: str, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(file, POD, CONTAINER)
    file.close()
    spoil(folder, "UPDATE records SET body = ? WHERE id = 'c1'", body)
    assert RecordFile(folder).read() == [POD]
    assert "container c1: " in caplog.text
    assert Path(f"{folder}.unreadable/records.db").exists()


def test_a_file_of_a_newer_schema_is_left_as_it_is(
    file: RecordFile, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(file, POD)
    assert not file.is_newer()
    file.close()
    spoil(folder, f"PRAGMA user_version = {SCHEMA + 1}")
    before = Path(folder, "records.db").read_bytes()
    file = RecordFile(folder)
    assert file.is_newer()
    why = f"it has schema {SCHEMA + 1} of a newer phantom-cri, this one knows {SCHEMA}"
    assert f"records.db is ignored and not changed, its pods are not recovered: {why}" in caplog.text
    assert file.read() == []
    for whole in (False, True):
        with pytest.raises(NewerSchema, match=why):
            write(file, CONTAINER, whole=whole)
    assert Path(folder, "records.db").read_bytes() == before
    assert not os.path.exists(f"{folder}.unreadable")
    spoil(folder, f"PRAGMA user_version = {SCHEMA}")
    assert file.read() == [POD], "nothing of it is lost"


def test_only_the_last_one_set_aside_is_kept(file: RecordFile, folder: str) -> None:
    for content in (b"first" * 200, b"second" * 200):
        os.makedirs(folder)
        Path(folder, "records.db").write_bytes(content)
        file.read()
        assert os.listdir(os.path.dirname(folder)) == ["records.unreadable"]
        assert Path(f"{folder}.unreadable/records.db").read_bytes() == content


def test_damage_that_is_found_while_writing(
    file: RecordFile, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(folder)
    Path(folder, "records.db").write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        write(file, POD)
    assert "was moved to" in caplog.text
    write(file, POD, whole=True)
    assert file.read() == [POD]


def test_a_folder_that_cannot_be_made_is_an_error_to_the_writer(
    file: RecordFile, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path(folder).write_text("in the way")
    with pytest.raises(OSError):
        write(file, POD)
    assert file.read() == []
    os.unlink(folder)
    write(file, POD)
    assert file.read() == [POD]


def test_the_file_is_for_root_alone(file: RecordFile, folder: str) -> None:
    """Environment variables of containers are in it."""
    write(file, POD)
    assert os.stat(folder).st_mode & 0o777 == 0o700


def test_the_log_and_the_file_stay_small(
    file: RecordFile, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    for number in range(3000):
        file.write({f"p{number}": POD, f"p{number - 10}": None}, whole=False)
    sizes = {path.name: path.stat().st_size for path in Path(folder).iterdir()}
    assert sum(sizes.values()) < 3 << 20, sizes


def test_a_process_killed_in_the_middle_leaves_whole_transactions(folder: str) -> None:
    """Pairs are written in one transaction each; whenever it is killed, there is no half of one."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.unit.lifecycle.test_record_file import POD, CONTAINER, RecordFile
from phantom_cri.codec import replace
file = RecordFile({folder!r})
for n in range(1, 1 << 30):
    file.write({{"p1": replace(POD, created_at=n), "c1": replace(CONTAINER, created_at=n)}}, whole=False)
    print(n, flush=True)
"""
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            last = 0
            for line in child.stdout:
                last = int(line)
                if last > 40:
                    child.kill()
        file = RecordFile(folder)
        found = {record.created_at for record in file.read()}
        file.close()
        assert len(found) == 1, "both are of one transaction"
        assert found.pop() in (last, last + 1), "what was answered is there"
