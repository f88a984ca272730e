"""Files in folders: which device counts, what a change or a bad file does, and what devices add."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from phantom_cri.cdi import Registry
from phantom_cri.errors import FailedPrecondition, PhantomError, ResourceExhausted, Unimplemented
from phantom_cri.model import InjectedDevice, InjectedHook, Injection, Mount


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "run").mkdir()
    return tmp_path / "etc", tmp_path / "run"


@pytest.fixture
def registry(folders: tuple[Path, Path]) -> Registry:
    return Registry([*map(str, folders), "/nowhere/cdi"])


def write(path: Path, devices: dict[str, Any], kind: str = "vendor.com/gpu", **fields: Any) -> None:
    listed = [{"name": name, "containerEdits": edits} for name, edits in devices.items()]
    path.write_text(json.dumps({"cdiVersion": "1.1.0", "kind": kind, "devices": listed, **fields}))


def variables(registry: Registry, *names: str) -> dict[str, str]:
    return dict(registry.injection([f"vendor.com/gpu={name}" for name in names]).env)


def test_devices_that_nobody_describes(registry: Registry, folders: tuple[Path, Path]) -> None:
    write(folders[0] / "a.json", {"0": {"env": ["A=0"]}})
    (folders[0] / "bad.yaml").write_text("kind: [")
    (folders[0] / "worse.json").write_text('{"cdiVersion": "0.1.0", "kind": "x", "devices": []}')
    (folders[0] / "not-looked-at.yml").write_text("kind: [")
    (folders[0] / "folder.json").mkdir()
    (folders[0] / "dangling.json").symlink_to("nothing")
    names = ["vendor.com/gpu=0", "vendor.com/gpu=1", "other/x=y"]
    with pytest.raises(FailedPrecondition) as refused:
        registry.injection(names)
    text = str(refused.value)
    assert "unresolvable CDI devices vendor.com/gpu=1, other/x=y" in text
    assert "bad.yaml: " in text
    assert "worse.json: kind: 'x' is not vendor/class" in text
    assert "yml" not in text
    assert variables(registry, "0") == {"A": "0"}, "a bad file takes only its own devices away"


@pytest.mark.parametrize("what", ["fifo", "huge", "binary"])
def test_files_that_are_none(registry: Registry, folders: tuple[Path, Path], what: str) -> None:
    path = folders[0] / "x.json"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "huge":
        path.touch()
        os.truncate(path, (16 << 20) + 1)
    else:
        path.write_bytes(b"\xff\xfe\0")
    with pytest.raises(FailedPrecondition, match=r"x\.json: "):
        registry.injection(["v/c=d"])


@pytest.mark.parametrize(
    ("call", "number", "kind"),
    [
        ("open", errno.EMFILE, ResourceExhausted),
        ("listdir", errno.EMFILE, ResourceExhausted),
        ("open", errno.EIO, FailedPrecondition),
    ],
)
def test_what_could_not_be_read_is_read_the_next_time(
    registry: Registry,
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    kind: type[PhantomError],
) -> None:
    """The file has not changed since, and nothing of the failure is remembered."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    write(folders[0] / "a.json", {"0": {"env": ["A=0"]}})
    for _ in range(2):
        with monkeypatch.context() as broken, pytest.raises(kind) as refused:
            broken.setattr(os, call, fail)
            variables(registry, "0")
        assert errno.errorcode[number] in str(refused.value) or os.strerror(number) in str(refused.value)
    assert variables(registry, "0") == {"A": "0"}
    (folders[0] / "a.json").unlink()
    with pytest.raises(FailedPrecondition) as gone:
        variables(registry, "0")
    assert "a.json" not in str(gone.value)


def test_a_file_that_could_not_be_read_is_forgotten_with_its_end(
    registry: Registry, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "input/output")

    write(folders[0] / "a.json", {"0": {}})
    with monkeypatch.context() as broken, pytest.raises(FailedPrecondition, match=r"a\.json: .*input"):
        broken.setattr(os, "open", fail)
        variables(registry, "0")
    (folders[0] / "a.json").unlink()
    with pytest.raises(FailedPrecondition) as gone:
        variables(registry, "0")
    assert "a.json" not in str(gone.value)


def test_the_later_folder_wins_and_a_tie_is_nobodys(registry: Registry, folders: tuple[Path, Path]) -> None:
    static, dynamic = folders
    write(static / "a.json", {"0": {"env": ["A=static"]}, "1": {"env": ["A=once"]}, "2": {"env": ["A=low"]}})
    write(static / "b.json", {"1": {"env": ["A=twice"]}})
    write(dynamic / "a.json", {"0": {"env": ["A=dynamic"]}})
    assert variables(registry, "0") == {"A": "dynamic"}
    assert variables(registry, "2") == {"A": "low"}
    with pytest.raises(FailedPrecondition, match="unresolvable CDI devices vendor"):
        variables(registry, "1")
    write(dynamic / "b.json", {"0": {"env": ["A=again"]}})
    with pytest.raises(FailedPrecondition, match="gpu=0"):
        variables(registry, "0")


def test_changes_are_seen_at_once(registry: Registry, folders: tuple[Path, Path]) -> None:
    path = folders[1] / "a.yaml"
    text = (
        "cdiVersion: 0.5.0\nkind: vendor.com/gpu\ndevices: [{name: '0', containerEdits: {env: ['A=%s']}}]\n"
    )
    for value in ("1", "2"):
        path.with_suffix(".new").write_text(text % value)
        path.with_suffix(".new").rename(path)
        assert variables(registry, "0") == {"A": value}
    path.write_text("{")
    with pytest.raises(FailedPrecondition):
        variables(registry, "0")
    path.write_text(text % "3")
    assert variables(registry, "0") == {"A": "3"}
    path.unlink()
    with pytest.raises(FailedPrecondition):
        variables(registry, "0")


def test_edits_of_a_file_come_once_and_before_its_devices(
    registry: Registry, folders: tuple[Path, Path]
) -> None:
    first = {"env": ["ORDER=first", "ONE=1"], "hooks": [{"hookName": "createContainer", "path": "/bin/x"}]}
    second = {"env": ["ORDER=second"], "additionalGids": [44, 0, 44]}
    common = {
        "env": ["ORDER=file", "ALL=x=y"],
        "hooks": [{"hookName": "createContainer", "path": "/bin/all"}],
    }
    write(folders[0] / "a.json", {"1": first, "2": second}, containerEdits=common)
    found = registry.injection(["vendor.com/gpu=2", "vendor.com/gpu=1"])
    assert dict(found.env) == {"ORDER": "first", "ALL": "x=y", "ONE": "1"}
    assert [hook.path for hook in found.hooks] == ["/bin/all", "/bin/x"]
    assert found.groups == (44,)


def test_all_that_a_device_adds(registry: Registry, folders: tuple[Path, Path], tmp_path: Path) -> None:
    nodes = [
        {"path": "/dev/null"},
        {"path": "/dev/mine", "hostPath": "/dev/zero", "permissions": "r", "uid": 5, "fileMode": 0o640},
        {"path": "/dev/made", "type": "c", "major": 195, "minor": 255, "permissions": "none", "gid": 6},
        {"path": "/dev/pipe", "type": "p"},
    ]
    mounts = [
        {
            "hostPath": str(tmp_path),
            "containerPath": "/a",
            "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"],
        },
        {"hostPath": str(tmp_path), "containerPath": "/b", "options": ["bind", "rslave"]},
    ]
    hooks = [{"hookName": "createContainer", "path": "/bin/x", "args": ["x"], "env": ["A=b"], "timeout": 5}]
    write(folders[0] / "a.json", {"0": {"deviceNodes": nodes, "mounts": mounts, "hooks": hooks}})
    found = registry.injection(["vendor.com/gpu=0"])
    null = stat.S_IMODE(os.stat("/dev/null").st_mode)
    assert found == Injection(
        devices=(
            InjectedDevice("/dev/null", stat.S_IFCHR | null, 1, 3, None, None, "rwm"),
            InjectedDevice("/dev/mine", stat.S_IFCHR | 0o640, 1, 5, 5, None, "r"),
            InjectedDevice("/dev/made", stat.S_IFCHR | 0o666, 195, 255, None, 6, ""),
            InjectedDevice("/dev/pipe", stat.S_IFIFO | 0o666, 0, 0, None, None, ""),
        ),
        mounts=(
            Mount(container_path="/a", host_path=str(tmp_path), readonly=True, options=("nosuid", "nodev")),
            Mount("/b", str(tmp_path), propagation="host_to_container", options=("bind",)),
        ),
        hooks=(InjectedHook("createContainer", "/bin/x", ("x",), ("A=b",), 5),),
    )


@pytest.mark.parametrize(
    ("edits", "kind", "words"),
    [
        ({"deviceNodes": [{"path": "/dev/not-here"}]}, FailedPrecondition, "/dev/not-here: No such file"),
        (
            {"deviceNodes": [{"path": "/dev/x", "hostPath": "/etc"}]},
            FailedPrecondition,
            "/etc is not such a device",
        ),
        ({"deviceNodes": [{"path": "/dev/null", "type": "b"}]}, FailedPrecondition, "not such a device node"),
        (
            {"mounts": [{"hostPath": "/not/here", "containerPath": "/a"}]},
            FailedPrecondition,
            "'/not/here' does not",
        ),
        (
            {"mounts": [{"hostPath": "/", "containerPath": "/a", "type": "tmpfs"}]},
            Unimplemented,
            "type 'tmpfs'",
        ),
        (
            {"mounts": [{"hostPath": "/", "containerPath": "/a", "options": ["x"]}]},
            Unimplemented,
            "option 'x'",
        ),
        ({"intelRdt": {"closID": "gold"}}, Unimplemented, "intelRdt"),
        ({"netDevices": [{"hostInterfaceName": "eth9", "name": "e"}]}, Unimplemented, "netDevices: 'eth9'"),
    ],
)
def test_what_this_node_lacks_is_named(
    registry: Registry, folders: tuple[Path, Path], edits: Any, kind: type[Exception], words: str
) -> None:
    write(folders[0] / "a.json", {"0": edits})
    with pytest.raises(kind, match=rf"CDI file .*/a\.json: .*{words}"):
        registry.injection(["vendor.com/gpu=0"])
