"""The rules for one CDI file: what is refused names field and value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phantom_cri.cdi.document import Document, check
from phantom_cri.codec import DecodeError, from_json

NODE = {"path": "/dev/gpu0"}


def document(edits: Any = None, **fields: Any) -> Document:
    device = {"name": "gpu0", "containerEdits": {"deviceNodes": [NODE]} if edits is None else edits}
    made = {"cdiVersion": "1.1.0", "kind": "vendor.com/gpu", "devices": [device], **fields}
    return from_json(json.dumps(made), Document)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"containerEdits": []}, "containerEdits"),
        ({"containerEdit": {}}, "containerEdit"),
        ({"devices": [{"name": "a", "edits": {}}]}, "edits"),
        ({"devices": [{"name": "a"}]}, "containerEdits"),
        ({"edits": {"additionalGIDs": [1]}}, "additionalGIDs"),
        ({"edits": {"deviceNodes": [{"hostPath": "/dev/x"}]}}, "path"),
        ({"edits": {"deviceNodes": [{"path": "/dev/x", "type": "x"}]}}, "type"),
        ({"edits": {"hooks": [{"hookName": "later", "path": "/x"}]}}, "hookName"),
        ({"edits": {"env": "A=b"}}, "env"),
        ({"kind": None}, "kind"),
    ],
)
def test_what_does_not_decode(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        document(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cdiVersion": "0.9.0"}, "cdiVersion: '0.9.0' is not supported"),
        ({"cdiVersion": ""}, "cdiVersion"),
        ({"cdiVersion": "1.0"}, "cdiVersion"),
        ({"cdiVersion": "1.0.0-rc1"}, "cdiVersion"),
        ({"cdiVersion": "9" * 5000 + ".0.0"}, "cdiVersion"),
        ({"kind": "gpu"}, "kind: 'gpu'"),
        ({"kind": "1vendor/gpu"}, "kind"),
        ({"kind": "vendor/gpu-"}, "kind"),
        ({"kind": "vendor/a/b"}, "kind"),
        ({"devices": []}, "devices: the list is empty"),
        ({"devices": [{"name": "-a", "containerEdits": {"env": ["A=b"]}}]}, r"devices\[0\].name: '-a'"),
        (
            {"devices": [{"name": "a", "containerEdits": {"env": ["A=b"]}}] * 2},
            r"devices\[1\].name: 'a' appears twice",
        ),
        ({"edits": {}}, r"devices\[0\].containerEdits: is empty"),
        ({"edits": {"env": ["A"]}}, r"env\[0\]: 'A' is not NAME=value"),
        ({"edits": {"env": ["=b"]}}, "env"),
        ({"edits": {"deviceNodes": [{"path": "dev/x"}]}}, r"deviceNodes\[0\].path: 'dev/x'"),
        ({"edits": {"deviceNodes": [{"path": "/dev/x", "hostPath": "x"}]}}, "hostPath"),
        ({"edits": {"deviceNodes": [{"path": "/dev/x", "permissions": "rx"}]}}, "permissions: 'rx'"),
        ({"edits": {"deviceNodes": [{"path": "/dev/x", "uid": -1}]}}, "out of range"),
        ({"edits": {"deviceNodes": [{"path": "/dev/x", "fileMode": -1}]}}, "fileMode"),
        ({"edits": {"mounts": [{"hostPath": "x", "containerPath": "/x"}]}}, "hostPath"),
        ({"edits": {"mounts": [{"hostPath": "/x", "containerPath": "/x\0"}]}}, "containerPath"),
        ({"edits": {"hooks": [{"hookName": "poststop", "path": "bin/x"}]}}, "path"),
        ({"edits": {"hooks": [{"hookName": "poststop", "path": "/x", "timeout": 0}]}}, "timeout: 0"),
        ({"edits": {"hooks": [{"hookName": "poststop", "path": "/x", "args": ["\0"]}]}}, "NUL"),
        ({"edits": {"additionalGids": [2**32 - 1]}}, "additionalGids"),
    ],
)
def test_what_breaks_a_rule(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(document(**fields))


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({"edits": {"mounts": [{"hostPath": "/x", "containerPath": "/x", "type": "bind"}]}}, "0.4.0"),
        ({"edits": {"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/y"}]}}, "0.5.0"),
        ({"devices": [{"name": "0:1", "containerEdits": {"env": ["A=b"]}}]}, "0.5.0"),
        ({"annotations": {"a": "b"}}, "0.6.0"),
        ({"kind": "vendor.com/gpu.mig"}, "0.6.0"),
        ({"edits": {"intelRdt": {"closID": "x"}}}, "0.7.0"),
        ({"containerEdits": {"additionalGids": [44]}}, "0.7.0"),
        ({"edits": {"intelRdt": {"schemata": ["x"]}}}, "1.1.0"),
        ({"edits": {"netDevices": [{"hostInterfaceName": "eth1", "name": "net1"}]}}, "1.1.0"),
    ],
)
def test_each_feature_has_its_version(fields: dict[str, Any], needed: str) -> None:
    versions = [f"0.{minor}.0" for minor in range(1, 9)] + ["1.0.0", "1.1.0"]
    for version in versions:
        made = document(cdiVersion=version, **fields)
        if versions.index(version) < versions.index(needed):
            with pytest.raises(ValueError, match=f"needs cdiVersion {needed}, the file says {version}"):
                check(made)
        else:
            check(made)


def test_a_version_may_begin_with_a_letter() -> None:
    check(document(cdiVersion="v0.3.0"))
