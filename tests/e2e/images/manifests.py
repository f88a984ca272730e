"""Manifests and configs as a test wants them, sane or not, and a registry that serves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from harness.image import digest_of
from tests.e2e.images.spec_registry import SpecRegistry

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
OCTETS = "application/octet-stream"
WASM = b"\0asm\1\0\0\0"


def config_of(layers: Sequence[bytes], **more: Any) -> bytes:
    rootfs_of = {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs_of, **more}
    ).encode()


def descriptor(content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


def manifest_of(
    config: bytes,
    blobs: Sequence[bytes],
    types: Sequence[str] = (),
    config_type: str = OCI_CONFIG,
    **more: Any,
) -> dict[str, Any]:
    types = types or [TAR] * len(blobs)
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, config_type),
        "layers": [descriptor(blob, kind) for blob, kind in zip(blobs, types, strict=True)],
        **more,
    }


def serve(
    registry: SpecRegistry,
    name: str,
    document: dict[str, Any],
    blobs: Sequence[bytes],
    kind: str = OCI_MANIFEST,
) -> str:
    """Put a manifest or index as it is, sane or not, and these blobs into a registry; its reference."""
    content = json.dumps(document).encode()
    registry.blobs.update({digest_of(blob): blob for blob in blobs})
    registry.add_manifest(content, kind, digest_of(content), name, "latest")
    return f"{registry.host}/{name}:latest"
