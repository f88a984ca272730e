"""Indexes: which of their images runs."""

from __future__ import annotations

import json
from typing import Any

from harness.image import ARCHITECTURE, digest_of
from tests.e2e.images.spec_registry import SpecRegistry
from tests.e2e.odd_images.case import Better, Case, prints, refused
from tests.e2e.odd_images.draft import (
    DOCKER_LIST,
    INDEX,
    MANIFEST,
    OCTETS,
    Document,
    config,
    having,
    index,
    put,
)

HERE = {"architecture": ARCHITECTURE, "os": "linux"}
ELSEWHERE = {"architecture": "s390x", "os": "linux"}


def real(platform: Document | None = None, **more: Any) -> Any:
    """The image itself, for this machine unless said otherwise."""
    named = HERE if platform is None else platform
    return lambda registry, top: {**top, **({"platform": named} if named else {}), **more}


def other(platform: Document | None, says: str = "other") -> Any:
    """The same image with another program in it, for `platform`."""

    def entry(registry: SpecRegistry, top: Document) -> Document:
        made = json.loads(registry.blobs[top["digest"]])
        file = json.loads(registry.blobs[made["config"]["digest"]])
        file["config"]["Cmd"] = ["echo", says]
        made["config"] = put(registry, json.dumps(file).encode(), made["config"]["mediaType"])
        top = put(registry, json.dumps(made).encode(), MANIFEST)
        registry.types[top["digest"]] = MANIFEST
        return {**top, **({"platform": platform} if platform else {})}

    return entry


def attestation(registry: SpecRegistry, top: Document) -> Document:
    """What buildkit adds: a manifest for no platform, about another one."""
    made = json.loads(registry.blobs[top["digest"]])
    made["layers"] = [put(registry, b"{}", "application/vnd.in-toto+json")]
    entry = put(registry, json.dumps(made).encode(), MANIFEST)
    registry.types[entry["digest"]] = MANIFEST
    about = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": top["digest"],
    }
    return {**entry, "platform": {"architecture": "unknown", "os": "unknown"}, "annotations": about}


def nested(*entries: Any, platform: Document | None = None) -> Any:
    """An index in the index."""

    def entry(registry: SpecRegistry, top: Document) -> Document:
        inner = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [each(registry, top) for each in entries],
        }
        made = put(registry, json.dumps(inner).encode(), INDEX)
        registry.types[made["digest"]] = INDEX
        return {**made, **({"platform": platform} if platform else {})}

    return entry


def gone(registry: SpecRegistry, top: Document) -> Document:
    """A manifest that the registry does not have, for another platform."""
    return {"mediaType": MANIFEST, "digest": digest_of(b"gone"), "size": 10, "platform": ELSEWHERE}


RUNS = config(Cmd=["echo", "real"])

INDEXES = (
    Case(
        "index-with-attestations",
        "An index has attestations before and after the one image.",
        [RUNS, index(attestation, real(), attestation)],
        (),
        prints("real"),
    ),
    Case(
        "index-of-attestations",
        "An index has nothing but an attestation.",
        [RUNS, index(attestation)],
        (),
        refused("pull", "not found"),
    ),
    Case(
        "index-with-others",
        "An index has images of other platforms first, one of which the registry does not have.",
        [RUNS, index(other(ELSEWHERE), gone, other({"architecture": ARCHITECTURE, "os": "windows"}), real())],
        (),
        prints("real"),
    ),
    Case(
        "index-of-others",
        "An index has no image for this machine.",
        [RUNS, index(other(ELSEWHERE), gone)],
        (),
        refused("pull", "not found"),
    ),
    Case(
        "index-empty",
        "An index has no entries.",
        [RUNS, index()],
        (),
        refused("pull", "not found"),
    ),
    Case(
        "index-null",
        "An index's entries are null.",
        [RUNS, index(manifests=None)],
        (),
        refused("pull", "not found"),
    ),
    Case(
        "index-nested",
        "An index has an index that has the image.",
        [RUNS, index(nested(other(ELSEWHERE), real()))],
        (),
        prints("real"),
    ),
    Case(
        "index-nested-with-platform",
        "An index has one index for each platform, and the inner entries do not say theirs.",
        [
            RUNS,
            index(nested(other(None), platform=ELSEWHERE), nested(real({}), platform=HERE)),
        ],
        (),
        prints("real"),
    ),
    Case(
        "index-without-platform",
        "An index's only entry has no platform.",
        [RUNS, index(real({}))],
        (),
        prints("real"),
    ),
    Case(
        "index-platform-last",
        "An index has an entry without platform before the one for this machine.",
        [RUNS, index(other(None), real())],
        (),
        prints("real"),
    ),
    Case(
        "index-same-platform-twice",
        "An index has two images for this machine.",
        [RUNS, index(real(), other(HERE))],
        (),
        prints("real"),
    ),
    Case(
        "index-variants",
        "An index has images for this machine without variant, with v1, and with one from the future.",
        [
            RUNS,
            index(other({**HERE, "variant": "v99"}, "v99"), other({**HERE, "variant": "v1"}, "v1"), real()),
        ],
        (),
        prints("v1"),
    ),
    Case(
        "index-platform-other-names",
        "An index calls this machine x86_64 or aarch64, and the system Linux.",
        [
            RUNS,
            index(
                real({"architecture": {"amd64": "x86_64", "arm64": "aarch64"}[ARCHITECTURE], "os": "Linux"})
            ),
        ],
        (),
        prints("real"),
    ),
    Case(
        "index-platform-empty-os",
        "An index's entry has this machine's architecture and an empty os.",
        [RUNS, index(real({"architecture": ARCHITECTURE, "os": ""}))],
        (),
        prints("real"),
    ),
    Case(
        "index-os-features",
        "An index's entry asks for a feature of the system that Linux does not have.",
        [RUNS, index(real({**HERE, "os.features": ["win32k"]}), other(HERE))],
        (),
        prints("other"),
    ),
    Case(
        "index-wrong-platform",
        "An index says that an image is for this machine, and its config says another one.",
        [RUNS, lambda draft: draft.file.update(architecture="s390x"), index(real())],
        (),
        prints("real"),
    ),
    Case(
        "index-entry-without-type",
        "An index's entry has no mediaType.",
        [RUNS, index(real(mediaType=""))],
        (),
        refused("pull", "not found"),
        Better(
            prints("real"), "what a document is, is read from the document; its digest is what was asked for"
        ),
    ),
    Case(
        "index-entry-of-unknown-type",
        "An index has an entry of an unknown type for this machine before the image.",
        [
            RUNS,
            index(
                lambda registry, top: {**put(registry, b"?", OCTETS), "platform": HERE},
                real(),
            ),
        ],
        (),
        refused("pull", "not found"),
        Better(prints("real"), "what is no image is passed over"),
    ),
    Case(
        "index-entry-size-wrong",
        "An index says another size of the manifest than it has.",
        [RUNS, index(real(size=77))],
        (),
        refused("pull"),
    ),
    Case(
        "index-entry-with-data",
        "An index has other bytes as an entry's data than the manifest's.",
        [RUNS, index(real(data="e30="))],
        (),
        prints("real"),
    ),
    Case(
        "index-of-docker",
        "A docker manifest list has an OCI manifest.",
        [RUNS, index(real(), mediaType=DOCKER_LIST), having(index_served_as=DOCKER_LIST)],
        (),
        prints("real"),
    ),
    Case(
        "index-without-type",
        "An index does not say its mediaType.",
        [RUNS, index(real(), mediaType="")],
        (),
        prints("real"),
    ),
    Case(
        "index-served-as-manifest",
        "An index is served under the type of a manifest.",
        [RUNS, index(real()), having(index_served_as=MANIFEST)],
        (),
        refused("pull"),
    ),
    Case(
        "index-served-as-json",
        "An index is served as application/json.",
        [RUNS, index(real()), having(index_served_as="application/json")],
        (),
        refused("pull", "not found"),
        Better(
            prints("real"), "what a document is, is read from the document; its digest is what was asked for"
        ),
    ),
)
