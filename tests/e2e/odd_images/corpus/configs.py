"""Image configs: what a decoder forgives, and programs that cannot run."""

from __future__ import annotations

import json
from typing import Any

from harness.image import LayerBuilder as Layer
from tests.e2e.odd_images.case import Better, Case, exits, prints, refused
from tests.e2e.odd_images.draft import config, config_file, having, layers

ECHO = config(Cmd=["echo", "ran"])


def lower_keys(file: Any) -> bytes:
    """Every key in lower case but those of maps that mean something."""
    process = {key.lower(): value for key, value in file.pop("config").items()}
    return json.dumps({**{key.upper(): value for key, value in file.items()}, "Config": process}).encode()


FILE = (
    Case(
        "config-null", "The config's config is null.", [config_file(config=None)], "echo ran", prints("ran")
    ),
    Case(
        "config-left-out",
        "The config has no config.",
        [config_file(config=...)],
        ["/bin/echo", "ran"],
        prints("ran"),
    ),
    Case(
        "config-runs-nothing",
        "Neither Entrypoint nor Cmd is there.",
        [config(Cmd=None)],
        (),
        refused("create"),
    ),
    Case("config-labels-null", "Labels is null.", [ECHO, config(Labels=None)], (), prints("ran")),
    Case("config-label-null", "A label is null.", [ECHO, config(Labels={"a": None})], (), prints("ran")),
    Case("config-label-number", "A label is a number.", [ECHO, config(Labels={"a": 1})], (), refused("pull")),
    Case(
        "config-labels-odd",
        "Labels have empty, long and odd keys and values.",
        [ECHO, config(Labels={"": "", "a b\n": "é=\u0001", "k" * 5000: "v" * 50_000})],
        (),
        prints("ran"),
    ),
    Case("config-volumes-null", "Volumes is null.", [ECHO, config(Volumes=None)], (), prints("ran")),
    Case("config-volumes-list", "Volumes is a list.", [ECHO, config(Volumes=["/v"])], (), refused("pull")),
    Case("config-ports-null", "ExposedPorts is null.", [ECHO, config(ExposedPorts=None)], (), prints("ran")),
    Case(
        "config-ports-odd",
        "ExposedPorts has what is no port, and a null.",
        [ECHO, config(ExposedPorts={"99999/xyz": {}, "": None})],
        (),
        prints("ran"),
    ),
    Case("config-history-null", "History is null.", [ECHO, config_file(history=None)], (), prints("ran")),
    Case(
        "config-created-odd",
        "The time of creation is no time.",
        [ECHO, config_file(created="yesterday")],
        (),
        refused("pull"),
        Better(prints("ran"), "nothing that runs depends on the time"),
    ),
    Case(
        "config-created-empty",
        "The time of creation is empty.",
        [ECHO, config_file(created="")],
        (),
        refused("pull"),
        Better(prints("ran"), "nothing that runs depends on the time"),
    ),
    Case(
        "config-unknown-keys",
        "The config has docker's Healthcheck, OnBuild and Shell, and keys that nobody knows.",
        [
            ECHO,
            config(Healthcheck={"Test": ["NONE"]}, OnBuild=["RUN x"], Shell=["/bin/no"], Tty=True, What=[{}]),
            config_file(docker_version="1.2", What={"is": None}),
        ],
        (),
        prints("ran"),
    ),
    Case(
        "config-keys-in-another-case",
        "Keys are in other cases, as Go's decoder allows.",
        [ECHO, having(encode_config=lower_keys)],
        (),
        prints("ran"),
    ),
    Case(
        "config-key-twice",
        "The config has `config` twice, empty the first time.",
        [
            ECHO,
            having(encode_config=lambda file: b'{"config": {},' + json.dumps(file).encode()[1:]),
        ],
        (),
        prints("ran"),
    ),
    Case(
        "config-is-a-list",
        "The config is a JSON list.",
        [having(encode_config=lambda file: json.dumps([file]).encode())],
        (),
        refused("pull"),
    ),
    Case(
        "config-is-no-json",
        "The config is no JSON.",
        [having(encode_config=lambda file: b"config of " + file["author"].encode())],
        (),
        refused("pull"),
    ),
    Case(
        "config-just-small-enough",
        "The config has 3.9 MiB.",
        [ECHO, config_file(comment="x" * 4_000_000)],
        (),
        prints("ran"),
    ),
    Case(
        "config-large",
        "The config has 9 MiB.",
        [ECHO, config_file(comment="x" * (9 << 20))],
        (),
        prints("ran"),
    ),
)

PLATFORM = (
    Case(
        "platform-missing",
        "The config has neither architecture nor os.",
        [ECHO, config_file(architecture=..., os=...)],
        (),
        prints("ran"),
    ),
    Case(
        "platform-null",
        "Architecture and os are null.",
        [ECHO, config_file(architecture=None, os=None)],
        (),
        prints("ran"),
    ),
    Case(
        "architecture-wrong",
        "The config says another architecture; the programs are this machine's.",
        [ECHO, config_file(architecture="s390x")],
        (),
        prints("ran"),
    ),
    Case("os-wrong", "The config says windows.", [ECHO, config_file(os="windows")], (), prints("ran")),
    Case(
        "program-of-another-machine",
        "The program is an ELF file of another architecture.",
        [
            layers(
                Layer().file("p", b"\x7fELF\2\2\1" + bytes(9) + b"\0\2\0\x16" + bytes(60), 0o755).finish()
            ),
            config(Cmd=["/p"]),
        ],
        (),
        exits(255, "exec /p: exec format error"),
        Better(
            refused("start"),
            "the error is StartContainer's, with its reason; no process ended with a code of its own",
        ),
    ),
    Case(
        "program-without-interpreter",
        "The program is a script whose interpreter is not there.",
        [layers(Layer().file("p", "#!/gone\n", 0o755).finish()), config(Cmd=["/p"])],
        (),
        exits(255, "exec /p: no such file or directory"),
        Better(
            refused("start"),
            "the error is StartContainer's, with its reason; no process ended with a code of its own",
        ),
    ),
    Case(
        "program-not-executable",
        "The program may not be executed.",
        [layers(Layer().file("p", "#!/bin/sh\necho ran\n", 0o644).finish()), config(Cmd=["/p"])],
        (),
        refused("start"),
    ),
    Case(
        "program-is-a-directory",
        "The program is a directory.",
        [config(Cmd=["/bin"])],
        (),
        refused("start"),
    ),
    Case(
        "program-missing",
        "The program is not there.",
        [config(Cmd=["/gone"])],
        (),
        refused("start"),
    ),
    Case(
        "program-without-shebang",
        "The program is a text without a first line that names an interpreter.",
        [layers(Layer().file("p", "echo ran\n", 0o755).finish()), config(Cmd=["/p"])],
        (),
        exits(255, "exec /p: exec format error"),
        Better(
            refused("start"),
            "the error is StartContainer's, with its reason; no process ended with a code of its own",
        ),
    ),
)
