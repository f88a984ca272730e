"""Manifests, configs and the choice of a platform."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from phantom_cri.errors import DataLoss, FailedPrecondition, NotFound
from phantom_cri.images import manifest
from phantom_cri.model import ImageConfig

DIGEST = "sha256:" + "a" * 64
BLOB = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2}


def entry(architecture: str, variant: str = "", os: str = "linux", name: str = "b") -> dict[str, Any]:
    platform = {"architecture": architecture, "os": os, "variant": variant}
    return {"digest": "sha256:" + name * 64, "size": 1, "platform": platform}


def chosen(machine: str, *entries: dict[str, Any]) -> str:
    document = manifest.parse_document(json.dumps({"schemaVersion": 2, "manifests": entries}).encode())
    assert isinstance(document, manifest.Index)
    return manifest.choose(document, machine).digest[7]


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        "nonsense",
        "{}",
        json.dumps({"manifests": [], "layers": []}),
        json.dumps({"manifests": [], "config": BLOB}),
        json.dumps({"manifests": [], "Layers": []}),
        json.dumps({"config": BLOB, "layers": [], "Layers": [BLOB]}),
        json.dumps({"config": {**BLOB, "digest": "sha256:../../etc"}}),
        json.dumps({"config": {**BLOB, "size": -1}}),
        json.dumps({"config": BLOB, "layers": [{"digest": "x", "size": 1}]}),
        "[" * 100_000,
    ],
)
def test_refused(document: str) -> None:
    with pytest.raises(DataLoss):
        manifest.parse_document(document.encode())


OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.mark.parametrize("sent_as", [OCI_MANIFEST, DOCKER_MANIFEST, "application/json", "text/plain", ""])
def test_a_manifest_is_what_its_content_is(sent_as: str) -> None:
    content = json.dumps({"mediaType": OCI_MANIFEST, "config": BLOB}).encode()
    assert isinstance(manifest.parse_document(content, sent_as), manifest.Manifest)


@pytest.mark.parametrize(
    ("document", "sent_as", "named"),
    [
        ({"mediaType": OCI_MANIFEST, "config": BLOB}, OCI_INDEX, OCI_MANIFEST),
        ({"mediaType": OCI_INDEX, "config": BLOB}, OCI_MANIFEST, OCI_INDEX),
        ({"config": BLOB}, OCI_INDEX, "''"),
        ({"mediaType": OCI_INDEX, "manifests": []}, OCI_MANIFEST, OCI_INDEX),
        ({"mediaType": OCI_MANIFEST, "manifests": []}, OCI_INDEX, OCI_MANIFEST),
        ({"manifests": []}, DOCKER_MANIFEST, "''"),
    ],
)
def test_a_manifest_sent_as_another_kind_names_both_types(
    document: dict[str, Any], sent_as: str, named: str
) -> None:
    with pytest.raises(DataLoss) as refused:
        manifest.parse_document(json.dumps(document).encode(), sent_as)
    assert sent_as in str(refused.value)
    assert named in str(refused.value)


def test_null_in_manifests() -> None:
    content = {
        "schemaVersion": 2,
        "mediaType": None,
        "config": {
            **BLOB,
            "mediaType": None,
            "urls": None,
            "annotations": None,
            "platform": None,
            "data": None,
        },
        "layers": None,
        "manifests": None,
        "annotations": None,
    }
    parsed = manifest.parse_document(json.dumps(content).encode())
    assert isinstance(parsed, manifest.Manifest)
    assert (parsed.config.media_type, parsed.layers) == ("", None)
    index = {"manifests": [{**BLOB, "platform": {"os": "linux", "architecture": None, "variant": None}}]}
    assert isinstance(manifest.parse_document(json.dumps(index).encode()), manifest.Index)
    empty = manifest.parse_document(json.dumps({"mediaType": OCI_INDEX, "manifests": None}).encode())
    assert isinstance(empty, manifest.Index)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"config": None}, "config"),
        ({"config": {**BLOB, "size": None}}, "size"),
        ({"config": {**BLOB, "digest": None}}, "digest"),
        ({"config": {**BLOB, "size": "2"}}, "$.config.size"),
        ({"config": {**BLOB, "size": 1 << 63}}, "size"),
        ({"config": BLOB, "layers": [None]}, "$.layers[0]"),
        ({"config": BLOB, "layers": {}}, "$.layers"),
        ({"config": BLOB, "mediaType": 5}, "mediaType"),
    ],
)
def test_wrong_types_in_manifests_name_the_field(document: dict[str, Any], field: str) -> None:
    with pytest.raises(DataLoss) as refused:
        manifest.parse_document(json.dumps(document).encode())
    assert field in str(refused.value)


def test_schema_1_is_named() -> None:
    with pytest.raises(FailedPrecondition, match="schema 1"):
        manifest.parse_document(b'{"schemaVersion": 1}')


def test_config_keys_in_any_case_and_null() -> None:
    content = {
        "Architecture": "amd64",
        "config": {"user": "u", "CMD": None, "WORKINGDIR": "/w", "Volumes": {"/v": {}}, "Labels": {"A": "b"}},
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    }
    config = manifest.parse_config(json.dumps(content).encode())
    process = config.process()
    assert (process.user, process.cmd, process.working_dir) == ("u", (), "/w")
    assert (process.volumes, process.labels, config.diff_ids) == (("/v",), {"A": "b"}, (DIGEST,))
    assert manifest.parse_config(b'{"config": null, "rootfs": null}').process().entrypoint == ()


def test_null_in_configs_is_empty() -> None:
    """As Go's decoder reads it: an absent field, an empty list, an empty text in a list or a map."""
    every = ("Labels", "Env", "Cmd", "Entrypoint", "Volumes", "User", "WorkingDir", "StopSignal")
    nulls = {"config": dict.fromkeys(every), "rootfs": {"type": "layers", "diff_ids": None}, "os": None}
    config = manifest.parse_config(json.dumps(nulls).encode())
    assert config.process() == ImageConfig()
    assert config.diff_ids == ()
    inner = {"Env": [None, "A=b"], "Cmd": [None], "Labels": {"a": None}, "Volumes": {"/v": None}}
    process = manifest.parse_config(json.dumps({"config": inner}).encode()).process()
    assert (process.env, process.cmd, process.labels) == (("", "A=b"), ("",), {"a": ""})
    assert process.volumes == ("/v",)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"config": {"Env": "A=b"}}, "env"),
        ({"config": {"Cmd": [1]}}, "cmd[0]"),
        ({"config": {"Entrypoint": {}}}, "entrypoint"),
        ({"config": {"Labels": {"a": 1}}}, "labels"),
        ({"config": {"Volumes": ["/v"]}}, "volumes"),
        ({"config": {"User": 1000}}, "user"),
        ({"config": []}, "config"),
        ({"rootfs": {"diff_ids": DIGEST}}, "diff_ids"),
        ({"rootfs": {"diff_ids": [DIGEST, None]}}, "rootfs.diff_ids[1]"),
        ({"rootfs": {"diff_ids": ["sha256:x"]}}, "rootfs.diff_ids[0]"),
    ],
)
def test_wrong_types_in_configs_name_the_field(content: dict[str, Any], field: str) -> None:
    with pytest.raises(DataLoss) as refused:
        manifest.parse_config(json.dumps(content).encode())
    assert field in str(refused.value)


@pytest.mark.parametrize(
    ("content", "is_config"),
    [
        (b'{"rootfs": {"type": "layers", "diff_ids": []}}', True),
        (b'{"rootfs": {"type": "layers"}}', True),
        (b'{"RootFS": {"Diff_IDs": ["x"]}}', True),
        (b"{}", False),
        (b'{"rootfs": null}', False),
        (b'{"rootfs": {"diff_ids": []}}', False),
        (b'{"rootfs": "layers"}', False),
        (b"[]", False),
        (b"\xff", False),
        (b"", False),
        (b"[" * 100_000, False),
    ],
)
def test_an_image_config_lists_its_layers(content: bytes, is_config: bool) -> None:
    assert manifest.is_image_config(content) == is_config


def test_platforms() -> None:
    assert chosen("x86_64", entry("arm64", name="a"), entry("amd64", name="b")) == "b"
    assert chosen("x86_64", entry("386", name="a"), entry("amd64", name="b")) == "b"
    assert chosen("x86_64", entry("386", name="a")) == "a"
    assert chosen("aarch64", entry("arm", "v7", name="a"), entry("arm64", "v8", name="b")) == "b"
    assert chosen("x86_64", entry("wasm", os="wasip1", name="a"), entry("amd64", name="b")) == "b"
    assert chosen("x86_64", entry("wasm", os="wasip1", name="a")) == "a"
    assert chosen("x86_64", entry("amd64", name="a"), entry("amd64", name="b")) == "a"
    attestation = entry("unknown", os="unknown", name="a")
    with pytest.raises(NotFound, match="no match for platform in manifest"):
        chosen("x86_64", attestation, entry("amd64", os="windows", name="b"))


def test_chain_ids_follow_the_specification() -> None:
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    chain = manifest.chain_ids((first, second))
    # printf 'sha256:11…1 sha256:22…2' | sha256sum
    assert chain[0] == first
    assert chain[1] == "sha256:" + hashlib.sha256(f"{first} {second}".encode()).hexdigest()


def test_layer_types() -> None:
    assert manifest.is_tar_type("application/vnd.oci.image.layer.v1.tar+zstd")
    assert manifest.is_tar_type("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    assert not manifest.is_tar_type("application/wasm")
