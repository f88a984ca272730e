"""Manifests, configs and the choice of a platform."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from phantom_cri.errors import DataLoss, FailedPrecondition, NotFound
from phantom_cri.images import manifest

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
        json.dumps({"config": {**BLOB, "digest": "sha256:../../etc"}}),
        json.dumps({"config": {**BLOB, "size": -1}}),
        json.dumps({"config": BLOB, "layers": [{"digest": "x", "size": 1}]}),
        "[" * 100_000,
    ],
)
def test_refused(document: str) -> None:
    with pytest.raises(DataLoss):
        manifest.parse_document(document.encode())


def test_media_type_must_agree() -> None:
    kind = "application/vnd.oci.image.manifest.v1+json"
    content = json.dumps({"mediaType": kind, "config": BLOB}).encode()
    assert isinstance(manifest.parse_document(content, kind), manifest.Manifest)
    with pytest.raises(DataLoss, match="mediaType"):
        manifest.parse_document(content, "application/vnd.docker.distribution.manifest.v2+json")


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
    assert manifest.is_tar_layer("application/vnd.oci.image.layer.v1.tar+zstd")
    assert manifest.is_tar_layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    assert not manifest.is_tar_layer("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")
    assert not manifest.is_tar_layer("application/wasm")
