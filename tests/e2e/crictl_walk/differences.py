"""Where two runtimes may print different things, each with its reason. All else has to be the same."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.e2e.crictl_walk.compare import Rule

# pattern, what is read in its place, why
BLANKS = (
    (r"\d{4}-\d\d-\d\d[T ][\d:.]+( \+0000 UTC|Z|[+-]\d\d:\d\d)", "<time>", "the walks follow each other"),
    (r"\b\d{19}\b", "<ns>", "the same, as nanoseconds since 1970"),
    (r"\b(\d+|About a|Less than a) (second|minute)s? ago", "<ago>", "the same, as crictl says it"),
    (r"(?<!sha256:)\b[0-9a-f]{64}\b", "<id>", "pods and containers that no step remembers"),
    (r"\b[0-9a-f]{13}\b", "<id>", "the same in tables"),
    (r"unix:///\S+\.sock", "<endpoint>", "each runtime has its own"),
    (r"\b10\.\d+\.\d+\.\d+\b", "<ip>", "each runtime has its own range"),
    (r"127\.0\.0\.1:\d+|\[::1\]:\d+", "<local>", "the kernel picks the port that is forwarded"),
    (r"Handling connection for \d+", "Handling connection", "the same port"),
    (r"^Info: map.*", "Info: …", "tables print the verbose map on one line: JSON is compared instead"),
    (r"(?<=command in container: ).*", "…", "the runtime's own words behind crictl's"),
    (r"(?<=[0-9\s])\d+(\.\d+)?(k|M|G)?B\b", "<bytes>", "what was used at one moment"),
    (r"<bytes>\s+\d+\s+<bytes>", "<bytes> <inodes> <bytes>", "what was used at one moment"),
    (r"^(Inodes|Mountpoint)\[0\]: .*", r"\1: …", "what was used at one moment, in a place of its own"),
    (r"^(RuntimeName|RuntimeVersion): .*", r"\1: …", "each runtime has its own"),
)

MOMENT = "what was used at one moment"
OWN = "each runtime has its own"
RULES = (
    # info
    Rule("config", "each runtime's own configuration; `stateDir`, which critest reads, is there"),
    Rule("cniconfig|lastCNILoadStatus.*", "no CNI with the built-in network", optional=True),
    Rule("golang", "no Go here", optional=True),
    Rule("runtimeHandlers", "containerd lists its default handler a second time by name"),
    Rule("status.conditions", "containerd adds one about its deprecated settings"),
    # verbose maps: config and runtimeSpec are there on both, the rest is each runtime's own
    Rule(r"(.*\.)?info\.pid", "the kernel picks it"),
    Rule(
        r"(.*\.)?info\.(snapshot.*|runtimeType|runtimeOptions|removing|image|imageID|cgroup|user|sandboxID"
        r"|cniResult|netNamespaceClosed|sandboxMetadata|cgroupParent|pool|start|coldReason|runtimeHandler"
        r"|overhead|resources|artifactType|configMediaType|manifestDigest|layers|artifacts|driver)",
        "how this runtime does it: no shim, no snapshotter, no CNI result, but pools",
        optional=True,
    ),
    Rule(
        r"(.*\.)?info\.runtimeSpec", "no OCI runtime: only the parts that scripts read (unit tests say which)"
    ),
    Rule(
        r"(.*\.)?info\.config\.envs\[\]\.value",
        "values of variables carry secrets, and this is pasted into bug reports",
        optional=True,
    ),
    # status
    Rule(r"(.*\.)?linux\.namespaces\.options", "containerd leaves out what the request did", optional=True),
    Rule(r"(.*\.)?userSpecifiedImage", "containerd forgets what crictl asked for", optional=True),
    Rule(
        r"(.*\.)?resources\.linux\.memorySwapLimitInBytes",
        "nobody asked for one, so there is no swap: containerd tells that limit, we what was asked for",
    ),
    Rule(r"(.*\.)?status\.message", "the runtime's own words"),
    Rule(r"event \d\.podSandboxStatus\.network\.ip", "our pods have none once they are stopped"),
    # stats
    Rule(r".*\.(psi|swap|io)", "containerd tells them on cgroup v2 only", optional=True),
    Rule(r".*availableBytes", "containerd invents a limit where there is none", optional=True),
    Rule(r".*(Bytes|NanoSeconds|NanoCores|Faults|inodesUsed|processCount|[rt]xErrors)\.value", MOMENT),
    Rule(r".*\.fsId\.mountpoint", OWN),
    Rule(
        r".*\.writableLayer\.(timestamp|usedBytes|inodesUsed)",
        "containerd looks every ten seconds: it may not have yet",
        optional=True,
    ),
    Rule(r"status\.containerFilesystems", "containerd does not tell them"),
    Rule(r"stats\[\]\.linux\.network\.interfaces", "CRI leaves out the default one, containerd does not"),
    # metrics: both have the names that the kubelet knows (test_metrics compares them), each its own words
    Rule(r"descriptors|podMetrics", "labels as cAdvisor has them, of all pods; containerd's of some"),
)


@dataclass(frozen=True)
class Expected:
    """Differences that match `line` in steps that match `step`, both from their beginning.

    They have to be there, so that the list stays short, except where they are up to `chance`.
    """

    step: str
    line: str
    why: str
    chance: bool = False


CODE = r"(NotFound|AlreadyExists|FailedPrecondition|InvalidArgument|Unimplemented)"
EXPECTED = (
    Expected(
        ".*", rf"stderr: .*(Unknown|FailedPrecondition|lowercase)'\] → .*{CODE}'\]$", "a code that says more"
    ),
    Expected("info -o go-template", "stdout: ", "containerd has a condition more, about deprecated settings"),
    Expected(
        "(images|inspecti) .*(busybox:1|test-image-tags|nginx:1)",
        "(stdout: missing|images: |: )",
        "containerd does not filter images by name",
    ),
    Expected("info", "features.user_namespaces_host_network: missing", "not offered"),
    Expected("inspect ", r"info\.policy: added", "what holds a container, which containerd has no name for"),
    Expected("inspectp .*-q", "info: missing", "containerd adds the verbose map unasked"),
    Expected(
        "(exec|GET|end: port-forward).*(websocket|#2)|GET / #2|end: port-forward #2",
        "(exit: 1 → 0|exit: 0 → 200|stdout: added|stderr: .*bad handshake)",
        "containerd refuses crictl's WebSockets, which have no Origin",
    ),
    Expected("end: events", "event 7.podSandboxStatus.createdAt", "containerd has forgotten it by then"),
    Expected("(statsp|rmp?|rmi|exec --name) ", "stdout: order", "containerd lists in no order", chance=True),
    Expected(
        "update --memory 50331648 <failed>",
        "(exit: 0 → 1|stderr: |stdout: missing '<failed>')",
        "containerd notes a limit for what has ended; there is nothing to limit",
    ),
    Expected("rm -f <made>", "stderr: ", "here the log is there as soon as the container is made"),
    Expected("rmi --all", "", "only containerd has an image of its own, for sandboxes"),
)


def unexpected(step: str, lines: list[str], met: set[Expected]) -> list[str]:
    """Those lines that no entry of EXPECTED explains; the entries that explained one are added to `met`."""
    left = []
    for line in lines:
        entry = next((one for one in EXPECTED if re.match(one.step, step) and re.match(one.line, line)), None)
        if entry is None:
            left.append(line)
        else:
            met.add(entry)
    return left
