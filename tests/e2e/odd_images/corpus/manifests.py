"""Layers against DiffIDs, and media types."""

from __future__ import annotations

import base64
from typing import Any

from harness.image import LayerBuilder as Layer
from harness.image import digest_of
from tests.e2e.odd_images.case import Better, Case, prints, refused
from tests.e2e.odd_images.draft import (
    DOCKER,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI,
    OCTETS,
    Blob,
    Draft,
    base_layer,
    config_file,
    each_layer,
    having,
    last_layer,
    layers,
    manifest,
    own_layer,
    without_base,
)

A = Layer().directory("d").file("d/a", "a").finish()
B = Layer().file("d/b", "b").finish()
C = Layer().file("d/a", "a of c").finish()
GONE = digest_of(b"never sent")


def data_in_place(draft: Draft) -> None:
    """The topmost layer's bytes are in its descriptor."""
    layer = draft.layers[-1]
    layer.more = {"data": base64.b64encode(layer.content).decode()}


def many_layers(count: int) -> Any:
    """Layers above the base until there are `count`, each with a file and a new /d/top."""

    def change(draft: Draft) -> None:
        for number in range(count - len(draft.layers)):
            tar = Layer().file(f"d/{number}", "").file("d/top", str(number)).finish()
            draft.layers.append(Blob.packed(tar))

    return change


LAYERS = (
    Case(
        "layer-twice",
        "A layer is listed twice.",
        [layers(A, A)],
        "look /d",
        prints("/d/", '/d/a "a"'),
    ),
    Case(
        "layer-three-times",
        "A layer is listed three times, with others between that it covers.",
        [layers(A, C, A, B, A)],
        "look /d",
        prints("/d/", '/d/a "a"', '/d/b "b"'),
    ),
    Case(
        "layer-twice-covered",
        "A layer is listed twice, and what covers it comes last.",
        [layers(A, A, C)],
        "look /d",
        prints("/d/", '/d/a "a of c"'),
    ),
    Case(
        "base-twice",
        "The base is listed again on top of a layer that changed it.",
        [
            layers(Layer().file("etc/passwd", "changed").file(".wh.home", "").finish()),
            lambda draft: draft.layers.append(base_layer()),
        ],
        "head -n1 /etc/passwd; look /home",
        prints("root:x:0:0:root:/root:/bin/sh", "/home/"),
    ),
    Case(
        "layers-127",
        "There are 127 layers, docker's limit.",
        [many_layers(127)],
        "cat /d/top; echo; ls /d | wc -l",
        prints("124", "126"),
    ),
    Case(
        "layers-none",
        "There are no layers, and the config names none.",
        [having(layers=[])],
        ["/look", "/"],
        refused("start"),
    ),
    Case(
        "from-scratch",
        "There is nothing but a static program: no /etc, no /dev, no /tmp.",
        [without_base, layers(Layer().file("f", "f").finish())],
        ["/look", "/f", "/look/x", "/bin"],
        prints('/f "f"', "/look/x missing", "/bin missing"),
    ),
    Case(
        "layer-missing-at-registry",
        "The registry does not have a layer.",
        [own_layer, last_layer(digest=GONE)],
        "look /d",
        refused("pull", "not found"),
    ),
    Case(
        "layer-larger-than-said",
        "A layer has more bytes than its descriptor says.",
        [own_layer, last_layer(size=10)],
        "look /d",
        refused("pull"),
    ),
    Case(
        "layer-smaller-than-said",
        "A layer has fewer bytes than its descriptor says.",
        [own_layer, last_layer(size=1_000_000)],
        "look /d",
        refused("pull"),
    ),
    Case(
        "layer-size-negative",
        "A layer's size is negative.",
        [own_layer, last_layer(size=-1)],
        "look /d",
        refused("pull"),
    ),
    Case(
        "layer-in-descriptor",
        "A layer's bytes are in its descriptor, and at the registry too.",
        [own_layer, data_in_place],
        "look /d",
        prints("/d/", '/d/a "a"', '/d/of "layer-in-descriptor"'),
    ),
    Case(
        "layer-in-descriptor-wrong",
        "A descriptor has bytes that are not the layer's.",
        [own_layer, last_layer(data=base64.b64encode(b"other").decode())],
        "look /d",
        prints("/d/", '/d/a "a"', '/d/of "layer-in-descriptor-wrong"'),
    ),
    Case(
        "digest-upper-case",
        "A layer's digest is in upper case.",
        [
            own_layer,
            lambda draft: draft.layers[-1].more.update(digest=digest_of(draft.layers[-1].content).upper()),
        ],
        "look /d",
        refused("pull", "not found"),
        Better(refused("pull"), "the manifest is wrong, which the registry is not asked about"),
    ),
    Case(
        "digest-of-unknown-algorithm",
        "A layer's digest is of an algorithm that nobody has.",
        [own_layer, last_layer(digest="md17:0123456789abcdef0123456789abcdef")],
        "look /d",
        refused("pull", "not found"),
        Better(refused("pull"), "the manifest is wrong, which the registry is not asked about"),
    ),
)

DIFF_IDS = (
    Case(
        "diff-ids-fewer",
        "The config names fewer DiffIDs than there are layers.",
        [layers(A, B), having(diff_ids=lambda ids: ids[:-1])],
        "look /d",
        refused("pull"),
    ),
    Case(
        "diff-ids-more",
        "The config names more DiffIDs than there are layers.",
        [layers(A, B), having(diff_ids=lambda ids: [*ids, GONE])],
        "look /d",
        refused("pull"),
    ),
    Case(
        "diff-ids-in-another-order",
        "The config names the DiffIDs of the two topmost layers the other way round.",
        [layers(A, B), having(diff_ids=lambda ids: [*ids[:-2], ids[-1], ids[-2]])],
        "look /d",
        refused("pull"),
    ),
    Case(
        "diff-id-wrong",
        "A DiffID is not that of the layer.",
        [layers(A), having(diff_ids=lambda ids: [*ids[:-1], GONE])],
        "look /d",
        refused("pull"),
    ),
    Case(
        "diff-id-upper-case",
        "A DiffID is in upper case.",
        [layers(A), having(diff_ids=lambda ids: [*ids[:-1], ids[-1].upper()])],
        "look /d",
        refused("pull"),
    ),
    Case(
        "diff-ids-null",
        "The DiffIDs are null.",
        [having(diff_ids=lambda ids: None)],
        "echo ran",
        refused("pull"),
    ),
    Case(
        "rootfs-null",
        "The config's rootfs is null.",
        [config_file(rootfs=None)],
        "echo ran",
        refused("pull"),
    ),
    Case(
        "rootfs-missing",
        "The config has no rootfs.",
        [config_file(rootfs=...)],
        "echo ran",
        refused("pull"),
    ),
    Case(
        "rootfs-of-another-type",
        "The config's rootfs is not of type layers.",
        [config_file(rootfs={"type": "tape"})],
        "echo ran",
        prints("ran"),
    ),
    Case(
        "rootfs-without-type",
        "The config's rootfs has no type.",
        [config_file(rootfs={})],
        "echo ran",
        prints("ran"),
    ),
)

TYPES = (
    Case(
        "config-as-octets",
        "The config is sent as application/octet-stream.",
        [having(config_type=OCTETS), own_layer],
        "look /d",
        refused("create", "not found"),
        Better(prints("/d/", '/d/a "a"', '/d/of "config-as-octets"'), "the config is taken by its content"),
    ),
    Case(
        "layers-as-octets",
        "All layers are sent as application/octet-stream.",
        [own_layer, each_layer(OCTETS)],
        "look /d",
        refused("create", "not found"),
        Better(
            prints("/d/", '/d/a "a"', '/d/of "layers-as-octets"'),
            "a layer is taken by its content, which the DiffID proves",
        ),
    ),
    Case(
        "config-and-layers-as-octets",
        "Config and layers are sent as application/octet-stream.",
        [having(config_type=OCTETS), own_layer, each_layer(OCTETS)],
        "look /d",
        refused("create", "not found"),
        Better(
            prints("/d/", '/d/a "a"', '/d/of "config-and-layers-as-octets"'),
            "a layer is taken by its content, which the DiffID proves",
        ),
    ),
    Case(
        "one-layer-as-octets",
        "The topmost layer alone is sent as application/octet-stream: an image must not lose it.",
        [own_layer, last_layer(mediaType=OCTETS)],
        "look /d",
        refused("pull"),
        Better(
            prints("/d/", '/d/a "a"', '/d/of "one-layer-as-octets"'),
            "a layer is taken by its content, which the DiffID proves",
        ),
    ),
    Case(
        "one-layer-of-unknown-type",
        "The topmost layer is of a type that nobody knows.",
        [own_layer, last_layer(mediaType="application/vnd.example.thing")],
        "look /d",
        refused("pull"),
        Better(
            prints("/d/", '/d/a "a"', '/d/of "one-layer-of-unknown-type"'),
            "a layer is taken by its content, which the DiffID proves",
        ),
    ),
    Case(
        "layer-of-unknown-type-without-diff-id",
        "A blob of another type stands behind the layers, and the config does not count it.",
        [
            own_layer,
            layers(b"a signature, perhaps"),
            last_layer(mediaType="application/vnd.example.thing"),
            having(diff_ids=lambda ids: ids[:-1]),
        ],
        "look /d",
        prints("/d/", '/d/a "a"', '/d/of "layer-of-unknown-type-without-diff-id"'),
        Better(
            refused("pull"),
            "layers and DiffIDs have to match one by one: else an image could leave out layers of "
            "another one's config",
        ),
    ),
    Case(
        "layer-without-type",
        "The topmost layer's type is empty.",
        [own_layer, last_layer(mediaType="")],
        "look /d",
        refused("pull"),
        Better(
            prints("/d/", '/d/a "a"', '/d/of "layer-without-type"'),
            "a layer is taken by its content, which the DiffID proves",
        ),
    ),
    Case(
        "layer-of-a-manifest-type",
        "The topmost layer is said to be a manifest.",
        [own_layer, last_layer(mediaType=f"{OCI}.manifest.v1+json")],
        "look /d",
        refused("pull"),
        Better(
            prints("/d/", '/d/a "a"', '/d/of "layer-of-a-manifest-type"'),
            "a layer is taken by its content, which the DiffID proves",
        ),
    ),
    Case(
        "layer-encrypted",
        "The topmost layer is encrypted.",
        [own_layer, last_layer(mediaType=f"{OCI}.layer.v1.tar+gzip+encrypted")],
        "look /d",
        refused("pull"),
    ),
    Case(
        "layer-foreign",
        "A layer is foreign, of Windows' kind, with an URL where nothing is; the registry has it too.",
        [
            own_layer,
            last_layer(
                mediaType=f"{DOCKER}.image.rootfs.foreign.diff.tar.gzip", urls=["http://127.0.0.1:9/nothing"]
            ),
        ],
        "look /d",
        refused("pull"),
        Better(
            prints("/d/", '/d/a "a"', '/d/of "layer-foreign"'),
            "the registry is asked: an image does not choose what this node connects to",
        ),
    ),
    Case(
        "layer-nondistributable",
        "A layer is of OCI's type for those that may not be passed on, without an URL.",
        [own_layer, last_layer(mediaType=f"{OCI}.layer.nondistributable.v1.tar+gzip")],
        "look /d",
        prints("/d/", '/d/a "a"', '/d/of "layer-nondistributable"'),
    ),
    Case(
        "docker-manifest",
        "Everything is of docker's types.",
        [
            having(config_type=DOCKER_CONFIG, served_as=DOCKER_MANIFEST),
            each_layer(DOCKER_LAYER),
            manifest(lambda made: made.update(mediaType=DOCKER_MANIFEST)),
        ],
        "echo ran",
        prints("ran"),
    ),
    Case(
        "docker-manifest-with-oci-parts",
        "A docker manifest has an OCI config and OCI layers.",
        [having(served_as=DOCKER_MANIFEST), manifest(lambda made: made.update(mediaType=DOCKER_MANIFEST))],
        "echo ran",
        prints("ran"),
    ),
    Case(
        "oci-manifest-with-docker-parts",
        "An OCI manifest has a docker config, and one docker layer among OCI ones.",
        [having(config_type=DOCKER_CONFIG), own_layer, last_layer(mediaType=DOCKER_LAYER)],
        "look /d",
        prints("/d/", '/d/a "a"', '/d/of "oci-manifest-with-docker-parts"'),
    ),
)
