"""Manifests as documents, and references to them."""

from __future__ import annotations

import json

from harness.image import digest_of
from tests.e2e.odd_images.case import PULL_ONLY, STATUS, Better, Case, prints, refused
from tests.e2e.odd_images.draft import (
    DOCKER,
    DOCKER_MANIFEST,
    INDEX,
    OCI,
    OCTETS,
    Blob,
    Document,
    Draft,
    having,
    last_layer,
    manifest,
    own_layer,
)

GONE = digest_of(b"never sent")


def both_kinds(made: Document) -> None:
    """A manifest that can be read as an index too."""
    made["manifests"] = [{"mediaType": f"{OCI}.manifest.v1+json", "digest": GONE, "size": 10}]


def schema1(manifest_of: Document) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 1,
            "name": "odd",
            "tag": "latest",
            "architecture": "amd64",
            "fsLayers": [{"blobSum": layer["digest"]} for layer in manifest_of["layers"]],
            "history": [{"v1Compatibility": "{}"} for _ in manifest_of["layers"]],
        }
    ).encode()


def wasm_artifact(draft: Draft) -> None:
    """A Wasm artifact as CNCF describes it: its own config type, a module instead of layers."""
    draft.config_type = "application/vnd.wasm.config.v0+json"
    draft.file = {"architecture": "wasm", "os": "wasip1", "author": draft.name, "layerDigests": []}
    module = b"\0asm\1\0\0\0"
    draft.layers = [Blob(module, digest_of(module), "application/wasm")]


def empty_artifact(draft: Draft) -> None:
    """An artifact with OCI's empty config."""
    draft.config_type = "application/vnd.oci.empty.v1+json"
    draft.encode_config = lambda file: b"{}"
    text = draft.name.encode()
    draft.layers = [Blob(text, digest_of(text), "text/plain")]


DOCUMENTS = (
    Case(
        "manifest-without-type",
        "The manifest does not say its mediaType.",
        [manifest(lambda made: made.pop("mediaType"))],
        "echo ran",
        prints("ran"),
    ),
    Case(
        "content-type-json",
        "The manifest is served as application/json.",
        [having(served_as="application/json")],
        "echo ran",
        refused("pull", "not found"),
        Better(
            prints("ran"), "what a document is, is read from the document; its digest is what was asked for"
        ),
    ),
    Case(
        "content-type-text",
        "The manifest is served as text/plain with a charset.",
        [having(served_as="text/plain; charset=utf-8")],
        "echo ran",
        refused("pull"),
        Better(
            prints("ran"), "what a document is, is read from the document; its digest is what was asked for"
        ),
    ),
    Case(
        "content-type-octets",
        "The manifest is served as application/octet-stream.",
        [having(served_as=OCTETS)],
        "echo ran",
        refused("pull", "not found"),
        Better(
            prints("ran"), "what a document is, is read from the document; its digest is what was asked for"
        ),
    ),
    Case(
        "content-type-with-charset",
        "The manifest's Content-Type has a parameter.",
        [having(served_as=f"{OCI}.manifest.v1+json; charset=utf-8")],
        "echo ran",
        prints("ran"),
    ),
    Case(
        "content-type-of-docker",
        "An OCI manifest is served under docker's type.",
        [having(served_as=DOCKER_MANIFEST)],
        "echo ran",
        prints("ran"),
    ),
    Case(
        "content-type-of-index",
        "A manifest is served under the type of an index.",
        [having(served_as=INDEX)],
        "echo ran",
        refused("pull"),
    ),
    Case(
        "manifest-and-index-in-one",
        "A manifest has `manifests` too.",
        [manifest(both_kinds)],
        "echo ran",
        refused("pull"),
    ),
    Case(
        "schema-1",
        "The manifest is of docker's schema 1.",
        [having(encode_manifest=schema1, served_as=f"{DOCKER}.distribution.manifest.v1+prettyjws")],
        "echo ran",
        refused("pull"),
    ),
    Case(
        "schema-version-missing",
        "The manifest has no schemaVersion.",
        [manifest(lambda made: made.pop("schemaVersion"))],
        "echo ran",
        prints("ran"),
    ),
    Case(
        "layers-null",
        "The manifest's layers are null, and so are the config's DiffIDs.",
        [manifest(lambda made: made.update(layers=None)), having(diff_ids=lambda ids: None)],
        ["/look", "/"],
        refused("start"),
    ),
    Case(
        "config-missing",
        "The manifest has no config.",
        [manifest(lambda made: made.pop("config"))],
        "echo ran",
        refused("pull"),
    ),
    Case(
        "annotations-null",
        "Annotations are null, in the manifest and a layer's descriptor.",
        [own_layer, last_layer(annotations=None), manifest(lambda made: made.update(annotations=None))],
        "look /d",
        prints("/d/", '/d/a "a"', '/d/of "annotations-null"'),
    ),
    Case(
        "annotation-is-a-number",
        "An annotation's value is a number.",
        [manifest(lambda made: made.update(annotations={"a": 1}))],
        "echo ran",
        refused("pull"),
        Better(prints("ran"), "annotations of a manifest are not read"),
    ),
    Case(
        "annotations-odd",
        "Annotations have empty, long and odd keys and values.",
        [
            manifest(
                lambda made: made.update(annotations={"": "", "a b\n": "\u0000é", "k" * 5000: "v" * 50_000})
            )
        ],
        "echo ran",
        prints("ran"),
    ),
    Case(
        "manifest-unknown-keys",
        "The manifest has a subject, an artifactType and keys that nobody knows.",
        [
            manifest(
                lambda made: made.update(
                    subject={"mediaType": OCTETS, "digest": GONE, "size": 1},
                    artifactType="x/y",
                    what={"is": [1]},
                )
            )
        ],
        "echo ran",
        prints("ran"),
    ),
    Case(
        "manifest-with-spaces",
        "The manifest is indented, begins with an empty line and ends with others.",
        [having(encode_manifest=lambda made: b"\n" + json.dumps(made, indent=8).encode() + b"\r\n\n")],
        "echo ran",
        prints("ran"),
    ),
    Case(
        "manifest-with-text-behind",
        "Text follows the manifest's JSON.",
        [having(encode_manifest=lambda made: json.dumps(made).encode() + b" and more")],
        "echo ran",
        refused("pull"),
    ),
    Case(
        "manifest-key-twice",
        "The manifest has `layers` twice, empty the first time.",
        [having(encode_manifest=lambda made: b'{"layers": [],' + json.dumps(made).encode()[1:])],
        "echo ran",
        prints("ran"),
    ),
    Case(
        "manifest-keys-in-another-case",
        "The manifest has `Layers` and `CONFIG`, which Go reads as layers and config.",
        [manifest(lambda made: made.update({"Layers": made.pop("layers"), "CONFIG": made.pop("config")}))],
        "echo ran",
        prints("ran"),
        Better(
            refused("pull"),
            "keys are case-sensitive: with `layers` and `Layers` two readers would see two images",
        ),
    ),
    Case(
        "manifest-just-small-enough",
        "The manifest has 3.9 MiB.",
        [manifest(lambda made: made.update(annotations={"a": "x" * 4_090_000}))],
        "echo ran",
        prints("ran"),
    ),
    Case(
        "manifest-too-large",
        "The manifest has 9 MiB.",
        [manifest(lambda made: made.update(annotations={"a": "x" * (9 << 20)}))],
        "echo ran",
        refused("pull", "not found"),
        Better(refused("pull"), "it is there, and too large; the message says how large it may be"),
    ),
    Case(
        "artifact-wasm",
        "The image is a Wasm artifact, with a config and a layer of its own types.",
        [wasm_artifact],
        "echo ran",
        refused("start"),
        Better(
            refused("create"),
            "says that it is an artifact without a root file system, not that sh is missing",
        ),
    ),
    Case(
        "artifact-empty-config",
        "The image is an artifact with OCI's empty config and a text.",
        [empty_artifact],
        "echo ran",
        refused("start"),
        Better(
            refused("create"),
            "says that it is an artifact without a root file system, not that sh is missing",
        ),
    ),
    Case(
        "artifact-pulled",
        "An artifact with OCI's empty config is pulled and not run, as an image volume's would be.",
        [empty_artifact],
        PULL_ONLY,
        prints("pulled"),
    ),
    Case(
        "tag-and-digest",
        "The reference has a tag and a digest: the digest counts, and the tag is not kept.",
        [having(ask="{host}/{name}:latest@{digest}")],
        STATUS,
        prints("HOST/tag-and-digest@sha256:DIGEST", "user unset"),
    ),
    Case(
        "other-tag-and-digest",
        "The reference has a digest and a tag that does not exist.",
        [having(ask="{host}/{name}:never@{digest}")],
        STATUS,
        prints("HOST/other-tag-and-digest@sha256:DIGEST", "user unset"),
    ),
)
