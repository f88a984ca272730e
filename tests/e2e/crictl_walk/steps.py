"""The walk: every crictl 1.36 command with its main flags, in an order in which each has something to show.

`<word>` stands for what an earlier step remembered (`keep`), a file of `inputs.py`, or a fact of the walk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

IMAGE = "registry.k8s.io/e2e-test-images/busybox:1.29-2"
SERVER = "registry.k8s.io/e2e-test-images/nginx:1.14-2"
TAGS = "gcr.io/k8s-staging-cri-tools/test-image-tags"
OTHER = "gcr.io/k8s-staging-cri-tools/test-image-1:latest"
NOTHING = "0123456789abcdef"


@dataclass(frozen=True)
class Step:
    """One crictl command line.

    `keep` remembers its stdout under that name. A step to `start` goes on in the background; the one to `end`
    interrupts it and has its output. `until` first waits for this pattern in the background's stdout.
    """

    words: tuple[str, ...]
    keep: str = ""
    stdin: str = ""
    how: Literal["run", "start", "end"] = "run"
    until: str = ""

    def __str__(self) -> str:
        return ("" if self.how == "run" else f"{self.how}: ") + " ".join(self.words)


def do(*words: str, keep: str = "", stdin: str = "") -> Step:
    return Step(words, keep, stdin)


def formats(*words: str, kinds: str = "json yaml", template: str = "") -> Iterator[Step]:
    """The command in each output format, and bare for its default."""
    yield do(*words)
    for kind in kinds.split():
        yield do(words[0], "-o", kind, *words[1:])
    if template:
        yield do(words[0], "-o", "go-template", "--template", template, *words[1:])


def client() -> Iterator[Step]:
    """What crictl answers by itself, and the first calls."""
    yield do("--version")
    yield from (do("completion", shell) for shell in ("bash", "zsh", "fish", "tcsh"))
    yield do("config", "--set", "timeout=10")
    yield do("config", "--get", "timeout")
    yield do("config", "debug", "true")
    yield do("config", "--list")
    yield do("config", "--get", "nothing")
    yield do("config", "--set", "debug=false")
    yield do("version")
    yield from formats("info", template="{{len .status.conditions}}")
    yield do("info", "-q")
    yield do("runtime-config")
    yield do("update-runtime-config", "--pod-cidr", "10.0.0.0/16")


def images() -> Iterator[Step]:
    yield do("pull", IMAGE)
    yield do("pull", "--pod-config", "<pod_file>", SERVER)
    yield do("pull", "--creds", "user:secret", "--annotation", "a=b", "--pull-timeout", "60s", OTHER)
    yield from (do("pull", f"{TAGS}:{tag}") for tag in (1, 2))
    yield do("pull", "registry.k8s.io/nothing:1")
    yield do("pull", "registry.k8s.io/Not/A/Name")
    yield do("pull", f"{TAGS}@sha256:{'0' * 64}")
    for name, image in (("image_id", IMAGE), ("tags_id", f"{TAGS}:1"), ("server_id", SERVER)):
        yield do("inspecti", "-o", "go-template", "--template", "{{.status.id}}", image, keep=name)
    yield do("images", "-q", "--no-trunc", f"{TAGS}:1")
    yield from formats("images", kinds="json yaml table")
    yield from formats("images", IMAGE, kinds="json yaml table")
    for flag in ("--digests", "--no-trunc", "--pinned", "--verbose", "--quiet"):
        yield do("images", flag)
    for wanted in (
        "dangling=true",
        "reference=/test-image-tags/",
        f"before={IMAGE}",
        f"since={IMAGE}",
        "color=red",
    ):
        yield do("images", "--filter", wanted)
    yield from formats("inspecti", IMAGE, kinds="json yaml table", template="{{.status.repoTags}}")
    yield do("inspecti", "--quiet", f"{TAGS}:2")
    yield do("inspecti", "<image_id>")
    yield do("inspecti", "--name", SERVER)
    yield do("inspecti", "--filter", "reference=/nginx/")
    yield do("inspecti", "registry.k8s.io/nothing:1")


def pods() -> Iterator[Step]:
    yield do("runp", "<pod_file>", keep="pod")
    yield do("runp", "<pod_file>")
    yield do("runp", "--runtime", "nothing", "<bare_pod_file>")
    yield do("runp", "--cancel-timeout", "20s", "<bare_pod_file>", keep="bare_pod")
    yield do("runp", "<no_metadata_file>")
    yield do("runp", "/nothing.json")
    yield from formats("pods", kinds="json yaml table")
    for flags in (
        ["-q"],
        ["--no-trunc"],
        ["--verbose"],
        ["--id", "<pod>"],
        ["--id", NOTHING],
        ["--label", "app=walk"],
        ["--label", "app=other"],
        ["--latest"],
        ["--last", "1"],
        ["--name", "^walk$"],
        ["--namespace", "default"],
        ["--state", "ready"],
        ["--state", "notready"],
        ["--state", "odd"],
    ):
        yield do("pods", *flags)
    yield from formats("inspectp", "<pod>", kinds="json yaml table", template="{{.status.state}}")
    yield do("inspectp", "-q", "<pod>")
    yield do("inspectp", "--latest", "-q")
    yield do("inspectp", "--name", "^walk$", "-q")
    yield do("inspectp", "--state", "notready")
    yield do("inspectp", NOTHING)


def containers() -> Iterator[Step]:
    """`web` serves, `reader` runs a shell, `failed` has ended, `made` is not started."""
    yield do("create", "<pod>", "<web_file>", "<pod_file>", keep="web")
    yield do("create", "<pod>", "<web_file>", "<pod_file>")
    yield do("create", "--no-pull", "<pod>", "<reader_file>", "<pod_file>", keep="reader")
    yield do("create", "--with-pull", "<pod>", "<made_file>", "<pod_file>", keep="made")
    yield do("create", "<pod>", "<missing_image_file>", "<pod_file>")
    yield do("create", "<pod>", "<missing_program_file>", "<pod_file>", keep="unstartable")
    yield do("create", NOTHING, "<web_file>", "<pod_file>")
    yield do("create", "jsonschema")
    yield do("start", "<web>", "<reader>")
    yield do("start", "<web>")
    yield do("start", "<unstartable>")
    yield do("start", NOTHING)
    yield do("run", "--no-pull", "<failing_file>", "<other_pod_file>", keep="failed")
    yield do("run", "<missing_program_file>", "<third_pod_file>")
    yield from formats("ps", kinds="json yaml table")
    yield from formats("ps", "-a", kinds="json yaml table")
    for flags in (
        ["-q"],
        ["--no-trunc"],
        ["--verbose"],
        ["-r"],
        ["--id", "<web>"],
        ["--image", IMAGE],
        ["--image", "nothing"],
        ["--label", "part=web"],
        ["--latest"],
        ["--last", "2"],
        ["--name", "web"],
        ["--namespace", "default"],
        ["--pod", "<pod>"],
        ["--state", "exited"],
        ["--state", "created"],
        ["--state", "odd"],
    ):
        yield do("ps", *flags)
    yield from formats("inspect", "<web>", kinds="json yaml table", template="{{.status.state}}")
    yield do("inspect", "-q", "<web>", "<reader>")
    yield do("inspect", "<made>")
    yield do("inspect", "<failed>")
    yield do("inspect", "<unstartable>")
    yield do("inspect", "--name", "web", "-q")
    yield do("inspect", "--state", "exited", "-q")
    yield do("inspect", NOTHING)


def talk() -> Iterator[Step]:
    """exec, attach, port-forward, logs."""
    for transport in ("spdy", "websocket"):
        yield do("exec", "-r", transport, "<reader>", "sh", "-c", "echo out; echo err >&2; exit 3")
        yield do("exec", "-i", "-r", transport, "<reader>", "cat", stdin="typed\n")
        yield do("exec", "-r", transport, "<reader>", "/nothing")
    yield do("exec", "--sync", "<reader>", "sh", "-c", "echo out; echo err >&2")
    yield do("exec", "--sync", "<reader>", "sh", "-c", "exit 4")
    yield do("exec", "--sync", "--timeout", "1", "<reader>", "sleep", "60")
    yield do("exec", "--sync", "<reader>", "/nothing")
    yield do("exec", "--name", "web|reader", "--sync", "echo", "several")
    yield do("exec", "--label", "part=web", "--quiet", "echo", "one")
    yield do("exec", "<failed>", "true")
    yield do("exec", NOTHING, "true")
    yield do("exec", "-r", "pigeon", "<reader>", "true")
    yield do("attach", "<failed>")
    yield do("attach", NOTHING)
    for transport in ("spdy", "websocket"):
        yield Step(("port-forward", "-r", transport, "<pod>", ":80"), how="start")
        yield Step(("GET", "/"), until=r"Forwarding from 127\.0\.0\.1:(\d+)")
        yield Step(("port-forward",), how="end", until="Handling connection")
    yield do("port-forward", NOTHING, ":80")
    yield do("port-forward", "<pod>", "words")
    yield Step(("logs", "--follow", "<reader>"), how="start")
    # The reader is a shell that reads its standard input: it ends with it.
    yield do("attach", "-i", "<reader>", stdin="echo attached; echo warned >&2; sleep 0.2\n")
    yield Step(("logs",), how="end", until="attached")
    yield do("logs", "<reader>")
    yield do("logs", "--tail", "1", "<failed>")
    yield do("logs", "--limit-bytes", "4", "<failed>")
    yield do("logs", "--stream", "stderr", "<reader>")
    yield do("logs", "--since", "1h", "<failed>")
    yield do("logs", "--timestamps", "<failed>")
    yield do("logs", "--reopen", "<web>")
    yield do("logs", "--reopen", "<failed>")
    yield do("logs", NOTHING)


def numbers() -> Iterator[Step]:
    yield from formats("imagefsinfo", kinds="json yaml table", template="{{len .status.imageFilesystems}}")
    yield from formats("stats", "--seconds", "1", kinds="json yaml table")
    yield do("stats", "--all", "-o", "json", "--seconds", "1")
    yield do("stats", "--id", "<web>", "-o", "json", "--seconds", "1")
    yield do("stats", "--pod", "<pod>", "--label", "part=web", "--seconds", "1")
    yield do("stats", NOTHING, "--seconds", "1")
    yield from formats("statsp", "--seconds", "1", kinds="json yaml table")
    yield do("statsp", "--id", "<pod>", "-o", "json", "--seconds", "1")
    yield do("statsp", "--label", "app=other", "--seconds", "1")
    yield from formats("metricdescs", kinds="json yaml")
    yield from formats("metricsp", kinds="json yaml")


def changes() -> Iterator[Step]:
    """Updates and ends, with the events of it all."""
    yield do("update", "--memory", "50331648", "--cpu-period", "100000", "--cpu-quota", "20000", "<web>")
    yield do("update", "--cpu-share", "512", "--cpuset-cpus", "0", "<web>")
    yield do("inspect", "-q", "<web>")
    yield do("update", "--cpuset-cpus", "4096", "<web>")
    yield do("update", "--memory", "50331648", "<failed>")
    yield do("update", "--memory", "50331648", NOTHING)
    yield do("checkpoint", NOTHING)
    yield do("checkpoint", "--export", "<folder>/checkpoint.tar", "<failed>")
    yield Step(("events",), how="start")
    yield do("runp", "<event_pod_file>", keep="event_pod")
    yield do("create", "<event_pod>", "<event_file>", "<event_pod_file>", keep="event")
    yield do("start", "<event>")
    yield do("stop", "<event>")
    yield do("rm", "<event>")
    yield do("stopp", "<event_pod>")
    yield do("rmp", "<event_pod>")
    yield Step(("events",), how="end", until=r'"<event_pod>",\s+"containerEventType":\s+"CONTAINER_DELETED')
    yield do("events", "-o", "table")


def end() -> Iterator[Step]:
    yield do("rm", "<web>")
    yield do("stop", "--timeout", "1", "<web>")
    yield do("stop", "<web>")
    yield do("stop", NOTHING)
    yield do("inspect", "-q", "<web>")
    yield do("rm", "--keep-logs", "<web>")
    yield do("rm", "<web>")
    yield do("rm", "-f", "<made>")
    yield do("rmp", "<pod>")
    yield do("stopp", "<pod>")
    yield do("stopp", "<pod>")
    yield do("stopp", NOTHING)
    yield do("inspectp", "-q", "<pod>")
    yield do("pods", "--state", "notready")
    yield do("start", "<made>")
    yield do("rmp", "<pod>")
    yield do("rmp", "<pod>")
    yield do("stop", "--all")
    yield do("rm", "--all", "--force")
    yield do("rmp", "--all", "--force")
    yield do("pods", "-q")
    yield do("ps", "-a", "-q")
    yield do("rmi", f"{TAGS}:1")
    yield do("images", TAGS)
    yield do("rmi", "<image_id>")
    yield do("rmi", "registry.k8s.io/nothing:1")
    yield do("rmi", "--prune")
    yield do("rmi", "--all")
    yield do("images")


def walk() -> list[Step]:
    parts = (client, images, pods, containers, talk, numbers, changes, end)
    return [step for part in parts for step in part()]
