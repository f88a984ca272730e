"""A container's policy as its processes meet it: masked paths, and an exec held as its container is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.daemon import Daemon
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.api.phantom.v1 import node_pb2
from phantom_cri.policy import PolicyBook
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, linux, refusal

pytestmark = pytest.mark.root

POLICIES = Path(__file__).parents[3] / "policies"
FIGURES = "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status"
UNMASKED = linux(masked_paths=[], readonly_paths=[])

Start = Callable[..., Cri]


@pytest.fixture
def start(make_daemon: DaemonMaker, busybox_image: str) -> Iterator[Start]:
    """start(configuration…) a daemon; answers a client whose image is there."""
    clients = []

    def made(**policy: str) -> Cri:
        daemon = make_daemon({"pools": [{"name": "default", "size": 1}], "policy": policy}).start()
        client = Cri(daemon.endpoint)
        client.pull(busybox_image)
        clients.append((client, daemon))
        return client

    yield made
    for client, _ in clients:
        client.close()


@pytest.fixture
def daemons(request: pytest.FixtureRequest) -> list[Daemon]:
    """Those that `start` made, in order."""
    found: list[Daemon] = request.node.daemons
    return found


def kill_and_restart(daemon: Daemon, cri: Cri, **policy: str) -> None:
    daemon.kill()
    daemon.config["policy"] = policy
    daemon.start()
    cri.wait_served()


def policy_of(container: Container) -> dict[str, str]:
    found: dict[str, str] = json.loads(container.details)["policy"]
    return found


def kept(daemon: Daemon) -> set[str]:
    return {file.stem for file in (daemon.state / "policies").iterdir()}


def own_policies(folder: Path, change: Callable[[str], str] = str) -> Path:
    """A folder of policies with one that is called own: the default one, changed."""
    shutil.copytree(POLICIES, folder, dirs_exist_ok=True)
    text = (POLICIES / "default.yaml").read_text().replace("name: default", "name: own")
    (folder / "own.yaml").write_text(change(text))
    return folder


# --- masked and read-only paths ----------------------------------------------


MASKED_BY_STRICT = PolicyBook.load(POLICIES).get("strict").masked_paths
SHOW = "for p in {}; do test -d $p && ls -A $p || cat $p; done 2>/dev/null | head -c 100000 | wc -c"
"""How many bytes the names or the content of some paths have."""


@pytest.mark.parametrize("asked", [linux(), UNMASKED], ids=["of a kubelet", "procMount Unmasked"])
def test_strict_masks_its_own_paths_whatever_is_asked(
    start: Start, tmp_path: Path, asked: pb.LinuxContainerConfig
) -> None:
    cri = start(default="strict")
    container = cri.pod(tmp_path).run_sandbox().start("sleep 100", linux=asked)
    paths = [path for path in MASKED_BY_STRICT if Path(path).exists()]
    assert {"/proc/kallsyms", "/proc/modules", "/sys/kernel", "/sys/module"} & set(paths)
    assert container.tell(SHOW.format(" ".join(paths))) == "0"
    assert b"Read-only" in container.exec("echo x > /proc/sys/kernel/domainname").stderr
    container.exec("umount -l " + " ".join(paths))
    assert container.tell(SHOW.format(" ".join(paths))) == "0"


def test_what_only_strict_masks_is_there_under_default(start: Start, tmp_path: Path) -> None:
    container = start().pod(tmp_path).run_sandbox().start("sleep 100")
    for path in ("/proc/kallsyms", "/sys/kernel"):
        if Path(path).exists():
            assert int(container.tell(SHOW.format(path))) > 0


def test_strict_masks_in_a_user_namespace_against_its_root(start: Start, tmp_path: Path) -> None:
    ids = [pb.IDMapping(host_id=1 << 20, container_id=0, length=1 << 16)]
    users = pb.UserNamespace(mode=pb.POD, uids=ids, gids=ids)
    options = pb.NamespaceOption(userns_options=users, pid=pb.CONTAINER)
    context = pb.LinuxSandboxSecurityContext(namespace_options=options)
    cri = start(default="strict")
    pod = cri.pod(tmp_path, linux=pb.LinuxPodSandboxConfig(security_context=context))
    try:
        pod.run_sandbox()
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
            pytest.skip("no user namespaces on this host")
        raise
    asked = linux(namespace_options=options, capabilities=pb.Capability(add_capabilities=["SYS_ADMIN"]))
    container = pod.start("sleep 100", linux=asked)
    assert container.tell("umount /proc/kallsyms 2>/dev/null; wc -c < /proc/kallsyms; ls /sys/kernel") == "0"


def test_a_privileged_container_is_masked_by_no_policy(start: Start, tmp_path: Path) -> None:
    context = pb.LinuxSandboxSecurityContext(privileged=True)
    pod = start(default="strict").pod(tmp_path, linux=pb.LinuxPodSandboxConfig(security_context=context))
    container = pod.run_sandbox().start("sleep 100", linux=linux(privileged=True))
    assert int(container.tell("ls /sys/kernel | wc -l")) > 0


# --- recorded with the container ---------------------------------------------


def test_an_exec_has_its_containers_policy_under_a_daemon_with_another(
    start: Start, daemons: list[Daemon], tmp_path: Path
) -> None:
    cri = start(default="strict")
    pod = cri.pod(tmp_path).run_sandbox()
    container, waiting = pod.start("sleep 100"), pod.create(f"{FIGURES}; wc -c < /proc/kallsyms")
    figures, recorded = container.tell(FIGURES), policy_of(container)
    assert recorded == policy_of(waiting) and recorded["name"] == "strict"
    assert "NoNewPrivs:\t1" in figures

    kill_and_restart(daemons[0], cri, default="default")
    assert container.tell(FIGURES) == figures
    assert b"Operation not permitted" in container.exec("mknod /n c 1 3").stderr
    assert policy_of(container) == recorded
    waiting.start()  # it was prepared by the daemon that is gone; masked and filtered as that one decided
    waiting.wait_exited()
    assert waiting.output == f"{figures}\n0"

    later = pod.start("sleep 100")
    assert policy_of(later)["name"] == "default"
    assert later.tell(FIGURES) != figures
    assert kept(daemons[0]) == {recorded["hash"], policy_of(later)["hash"]}


def test_a_changed_policy_file_holds_new_containers_only(
    start: Start, daemons: list[Daemon], tmp_path: Path
) -> None:
    policies = own_policies(tmp_path / "policies")
    cri = start(default="own", directory=str(policies))
    pod = cri.pod(tmp_path).run_sandbox()
    container = pod.start("sleep 100")
    figures = container.tell(FIGURES)
    own_policies(policies, lambda text: text.replace("no_new_privs: false", "no_new_privs: true"))
    kill_and_restart(daemons[0], cri, default="own", directory=str(policies))
    assert container.tell(FIGURES) == figures
    later = pod.start("sleep 100")
    assert later.tell(FIGURES) != figures
    before, after = policy_of(container), policy_of(later)
    assert before["name"] == after["name"] == "own"
    assert before["hash"] != after["hash"]


@pytest.mark.parametrize("restart", [False, True])
def test_a_changed_localhost_profile_holds_new_containers_only(
    start: Start, daemons: list[Daemon], tmp_path: Path, restart: bool
) -> None:
    profile = tmp_path / "profile.json"

    def write(action: str) -> pb.LinuxContainerConfig:
        rule = {"names": ["mkdir", "mkdirat"], "action": action}
        profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
        return linux(
            seccomp=pb.SecurityProfile(profile_type=pb.SecurityProfile.Localhost, localhost_ref=str(profile))
        )

    cri = start()
    pod = cri.pod(tmp_path).run_sandbox()
    asked = write("SCMP_ACT_ERRNO")
    container = pod.start("sleep 100", linux=asked)
    write("SCMP_ACT_ALLOW")
    if restart:
        kill_and_restart(daemons[0], cri)
        profile.unlink()
    assert b"Operation not permitted" in container.exec("mkdir /d").stderr
    write("SCMP_ACT_ALLOW")
    assert pod.start("sleep 100", linux=asked).tell("mkdir /d && echo made") == "made"


def test_without_the_recorded_policy_nothing_is_executed(
    start: Start, daemons: list[Daemon], tmp_path: Path
) -> None:
    cri = start()
    pod = cri.pod(tmp_path).run_sandbox()
    container = pod.start("sleep 100")
    daemons[0].kill()
    for file in (daemons[0].state / "policies").iterdir():
        file.write_bytes(b"{}")
    kill_and_restart(daemons[0], cri)
    code, text = refusal(lambda: container.exec("true"))
    assert (code, "policy 'default'" in text, "is damaged" in text) == (
        grpc.StatusCode.DATA_LOSS,
        True,
        True,
    )
    assert container.status.state == pb.CONTAINER_RUNNING
    pod.remove()
    assert not cri.containers()


def test_a_container_of_a_daemon_that_recorded_no_policy(
    start: Start, daemons: list[Daemon], tmp_path: Path
) -> None:
    cri = start()
    container = cri.pod(tmp_path).run_sandbox().start("sleep 100")
    figures = container.tell(FIGURES)
    daemons[0].kill()
    (path,) = (daemons[0].state / "pods").glob("*/containers/*.json")
    record: dict[str, Any] = json.loads(path.read_text())
    del record["policy"]
    path.write_text(json.dumps(record))
    kill_and_restart(daemons[0], cri)
    assert container.tell(FIGURES) == figures
    assert not kept(daemons[0])  # nobody's


def test_policies_of_containers_that_are_gone_do_not_pile_up(
    start: Start, daemons: list[Daemon], tmp_path: Path
) -> None:
    cri = start()
    pod = cri.pod(tmp_path).run_sandbox()
    living = pod.start("sleep 100")
    numbers = range(150)
    for number in numbers:
        pod.create("true", linux=linux(masked_paths=[f"/{number}"])).remove()
    assert 0 < len(kept(daemons[0])) <= 129
    kill_and_restart(daemons[0], cri)
    assert kept(daemons[0]) == {policy_of(living)["hash"]}
    assert living.tell("echo fine") == "fine"


# --- shown -------------------------------------------------------------------


def test_the_node_shows_its_policies_and_how_many_containers_have_them(
    start: Start, daemons: list[Daemon], tmp_path: Path
) -> None:
    cri = start(default="strict")
    pod = cri.pod(tmp_path).run_sandbox()
    pod.start("sleep 100")
    kill_and_restart(daemons[0], cri, default="default")
    for _ in range(2):
        pod.start("sleep 100")
    policies = {
        policy.name: policy for policy in cri.node.ListPolicies(node_pb2.ListPoliciesRequest()).policies
    }
    assert {name: policy.containers for name, policy in policies.items()} == {"default": 2, "strict": 1}
    assert (policies["default"].default, policies["strict"].default) == (True, False)
    assert tuple(policies["strict"].masked_paths) == MASKED_BY_STRICT

    def lines() -> set[str]:
        return {line for line in daemons[0].metrics().splitlines() if line.startswith("phantom_policy")}

    digests = {name: policy.digest for name, policy in policies.items()}
    expected = {
        'phantom_policy_containers{policy="default"} 2.0',
        'phantom_policy_containers{policy="strict"} 1.0',
        f'phantom_policy_info{{default="true",digest="{digests["default"]}",policy="default"}} 1.0',
        f'phantom_policy_info{{default="false",digest="{digests["strict"]}",policy="strict"}} 1.0',
    }
    wait_until(lambda: lines() == expected, "the metrics of policies")


def test_phantom_run_is_masked_by_the_nodes_policy(
    start: Start, daemons: list[Daemon], busybox_image: str, tmp_path: Path
) -> None:
    start(default="strict")
    phantom = [sys.executable, "-m", "phantom_cri.cli", "--host", daemons[0].endpoint, "run", "--rm"]
    script = f"{SHOW.format('/proc/kallsyms /proc/kcore')}; echo x > /proc/sys/kernel/domainname"
    command = [*phantom, "--log-dir", str(tmp_path), busybox_image, "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "0\n", done.stderr
    assert "Read-only" in done.stderr
