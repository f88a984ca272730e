"""The command against a server: exit codes, streams kept apart, and what stays behind (nothing)."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phantom_cri.codec import replace
from phantom_cri.doctor import Check
from phantom_cri.errors import Internal, NotFound, PhantomError, ResourceExhausted
from tests.unit.cli.fake_daemon import IMAGE, FakeDaemon, Outcome, Script, phantom, serving, start_phantom

BUSYBOX = "registry.test/busybox:1"


class Node:
    def __init__(self, daemon: FakeDaemon, host: str, logs: Path) -> None:
        self.daemon, self.host, self.logs = daemon, host, logs

    async def phantom(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        return await phantom(self.host, *arguments, stdin=stdin)

    async def run(self, *arguments: str) -> Outcome:
        return await self.phantom("run", "--log-dir", str(self.logs), *arguments)

    def nothing_stays(self) -> bool:
        left = list(self.logs.iterdir()) if self.logs.exists() else []
        return not self.daemon.pods and not self.daemon.containers and not left


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    daemon = FakeDaemon()
    async with serving(daemon, tmp_path / "s") as host:
        yield Node(daemon, host, tmp_path / "logs")


async def test_says_which_socket_and_how_to_start(tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/absent.sock"
    for command, code in ((["ps"], 1), (["run", "x"], 125), (["pull", "x"], 1), (["version"], 1)):
        outcome = await phantom(host, *command)
        assert outcome.code == code
        assert f"Cannot connect to the Phantom daemon at {host}" in outcome.err
        assert f"phantom-cri --listen {host}" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["run"], 125, "the following arguments are required: IMAGE"),
        (["run", "-it", "x"], 125, "the input device is not a TTY"),
        (["run", "-it", "-d", "--json", "x"], 125, "--json and -it exclude each other"),
        (["exec", "-it", "x", "sh"], 1, "the input device is not a TTY"),
        (["exec", "x"], 2, "the command is missing"),
        (["logs", "--tail", "some", "x"], 2, "must be a number of lines or all"),
        (["logs", "--since", "yesterday", "x"], 2, "must be a time or a duration"),
        (["run", "--detac", "x"], 125, "unrecognized arguments"),
        (["run", "--rm", "-d", "x"], 125, "--rm and --detach exclude each other"),
        (["run", "-v", "data:/data", "x"], 125, "--volume: must be HOST:POD"),
        (["run", "-m", "much", "x"], 125, "--memory: must be a size"),
        (["ps", "--everything"], 2, "unrecognized arguments: --everything"),
        (["--host", "/run/x.sock", "ps"], 1, "--host: must be unix://"),
        (["nonsense"], 2, "invalid choice: 'nonsense'"),
    ],
)
async def test_refuses_before_any_call(arguments: list[str], code: int, text: str) -> None:
    outcome = await phantom("unix:///nowhere/at/all.sock", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert text in outcome.err
    assert "Traceback" not in outcome.err


async def test_run_gives_output_on_both_streams_and_the_exit_code(node: Node) -> None:
    lines = (("stdout", "one\n"), ("stderr", "to stderr\n"), ("stdout", "two, "), ("stdout", "no end"))
    node.daemon.script = Script(lines=lines, exit_code=7, reason="Error")
    outcome = await node.run("--rm", BUSYBOX, "sh", "-c", "exit 7")
    assert outcome == Outcome(7, "one\ntwo, no end", "to stderr\n")
    assert node.daemon.configs[0].args == ("sh", "-c", "exit 7")
    assert node.daemon.configs[0].command == ()
    assert node.nothing_stays()


async def test_run_passes_flags_after_the_image_to_the_command(node: Node) -> None:
    assert (await node.run("--rm", BUSYBOX, "--rm", "-x", "--", "y")).code == 0
    assert node.daemon.configs[0].args == ("--rm", "-x", "--", "y")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PhantomError('exec: "nope": executable file not found in $PATH'), 127),
        (PhantomError('exec: "/nope": no such file or directory'), 127),
        (PhantomError('exec: "/etc/passwd": permission denied'), 126),
        (PhantomError('exec: "/script": exec format error'), 126),
        (Internal("op 7, bind /a on /b: ENOENT (No such file or directory)"), 125),
    ],
)
async def test_a_command_that_cannot_start_leaves_nothing(node: Node, error: PhantomError, code: int) -> None:
    node.daemon.failures["start_container"] = error
    outcome = await node.run(BUSYBOX)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err == f"phantom: Error response from daemon: {error}\n"
    assert node.nothing_stays()


@pytest.mark.parametrize("verb", ["run_pod_sandbox", "create_container"])
async def test_what_fails_half_way_leaves_nothing(node: Node, verb: str) -> None:
    node.daemon.failures[verb] = ResourceExhausted("no address left in 10.88.0.0/16")
    outcome = await node.run(BUSYBOX)
    assert outcome.code == 125
    assert outcome.err == "phantom: Error response from daemon: no address left in 10.88.0.0/16\n"
    assert node.nothing_stays()


async def test_run_sits_out_a_restart_of_the_daemon(tmp_path: Path) -> None:
    daemon = FakeDaemon()
    daemon.script = Script(lines=(("stdout", "begun\n"),), exit_code=None)
    async with serving(daemon, tmp_path / "s") as host:
        process = await start_phantom(host, "run", "--rm", "--log-dir", str(tmp_path / "logs"), BUSYBOX)
        assert process.stdout
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"begun\n"
    container_id = next(iter(daemon.containers))
    await daemon.stop_container(container_id, 0)
    async with serving(daemon, tmp_path / "s"):
        _, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, err) == (143, b"")
    assert daemon.pods == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_stops_and_removes(node: Node, number: signal.Signals) -> None:
    node.daemon.script = Script(lines=(("stdout", "begun\n"),), exit_code=None)
    process = await start_phantom(node.host, "run", "--log-dir", str(node.logs), BUSYBOX, "sleep", "1000")
    assert process.stdout
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"begun\n"
    process.send_signal(number)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, err) == (130, b"")
    assert [call[0] for call in node.daemon.calls][-2:] == ["stop_container", "remove_pod_sandbox"]
    assert node.nothing_stays()


async def test_a_reader_that_leaves_ends_the_run(node: Node) -> None:
    node.daemon.script = Script(lines=(("stdout", "x" * 1000 + "\n"),) * 500, exit_code=None)
    process = await start_phantom(node.host, "run", "--log-dir", str(node.logs), BUSYBOX, "yes")
    assert process.stdout and process.stderr
    await process.stdout.readexactly(10)
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    assert await asyncio.wait_for(process.wait(), 30) == 141
    assert await process.stderr.read() == b""
    assert node.nothing_stays()


async def test_run_without_rm_stays_listed_until_removed(node: Node) -> None:
    assert (await node.run("--name", "job", BUSYBOX, "true")).code == 0
    assert [pod.state for pod in node.daemon.pods.values()] == ["notready"]
    assert "job" not in (await node.phantom("ps")).out
    listed = await node.phantom("ps", "-a")
    assert "Exited (0) 1 second ago" in listed.out
    assert "warm" in listed.out
    assert (await node.phantom("rm", "job")).code == 0
    assert node.nothing_stays()


async def test_detached_prints_the_id_and_can_be_stopped_and_removed(node: Node) -> None:
    node.daemon.script = Script(exit_code=None)
    outcome = await node.run("-d", "--name", "server", BUSYBOX)
    sandbox_id = outcome.out.strip()
    assert (outcome.code, sandbox_id in node.daemon.pods) == (0, True)
    refused = await node.phantom("rm", sandbox_id[:6])
    assert refused.code == 1
    assert "is running (server): stop it, or use --force" in refused.err
    assert (await node.phantom("stop", "-t", "3", "server")).out == f"{sandbox_id[:13]}\n"
    assert ("stop_container", next(iter(node.daemon.containers)), 3) in node.daemon.calls
    assert (await node.phantom("rm", next(iter(node.daemon.containers))[:4])).code == 0
    assert node.nothing_stays()


async def test_run_pulls_when_missing_only(node: Node) -> None:
    node.daemon.remote["other:1"] = replace(IMAGE, id="sha256:" + "e" * 64)
    never = await node.run("--pull", "never", "other:1")
    assert (never.code, never.err) == (125, "phantom: No such image: other:1\n")
    missing = await node.run("--rm", "other:1")
    assert missing.code == 0
    assert "Unable to find image 'other:1' locally\n1f1f1f1f1f1f: " in missing.err
    assert (await node.run("--rm", "other:1")).err == ""
    assert [call for call in node.daemon.calls if call[0] == "pull"] == [("pull", "other:1")]
    absent = await node.run("absent:1")
    assert absent.code == 125
    assert absent.err.endswith("phantom: Error response from daemon: absent:1: not found in the registry\n")
    assert node.nothing_stays()


async def test_run_tells_how_it_started(node: Node) -> None:
    outcome = await node.run("--rm", "--timing", BUSYBOX)
    assert outcome.err == "start: warm from pool default; run claim 0.21 ms, run total 2.50 ms\n"
    node.daemon.script = Script(lines=(("stderr", "oh\n"),), exit_code=137, reason="OOMKilled")
    outcome = await node.run("--rm", "--json", BUSYBOX)
    line, end = (json.loads(text) for text in outcome.out.splitlines())
    assert line == {"stream": "stderr", "text": "oh\n"}
    assert (end["exit_code"], end["start"], end["stages"]["run claim"]) == (137, "warm", 210_000)
    assert (outcome.code, outcome.err) == (137, "phantom: the container ran out of memory (OOMKilled)\n")


async def test_pull_keeps_passwords_off_the_command_line(node: Node) -> None:
    node.daemon.remote["private:1"] = IMAGE
    outcome = await node.phantom("pull", "--creds", "ann", "private:1", stdin=b"s3cret\n")
    assert (outcome.code, outcome.out) == (0, f"Image is up to date for {IMAGE.id}\n")
    auth = node.daemon.pulled_with
    assert auth and (auth.username, auth.password) == ("ann", "s3cret")
    await node.phantom("pull", "--creds", "ann:p:w", "private:1")
    auth = node.daemon.pulled_with
    assert auth and (auth.username, auth.password) == ("ann", "p:w")
    await node.phantom("pull", "--auth", "-", "private:1", stdin=b"YW5uOnB3\n")
    auth = node.daemon.pulled_with
    assert auth and auth.auth == "YW5uOnB3"
    nothing = await node.phantom("pull", "--creds", "ann", "private:1")
    assert (nothing.code, nothing.err) == (1, "phantom: --creds: nothing on standard input\n")


async def test_pull_prints_lines_where_there_is_no_terminal(node: Node) -> None:
    node.daemon.remote["other:1"] = IMAGE
    outcome = await node.phantom("pull", "other:1")
    assert "1f1f1f1f1f1f: Pull complete\n" in outcome.err
    assert "\x1b" not in outcome.err
    quiet = await node.phantom("pull", "-q", "other:1")
    assert quiet == Outcome(0, f"{IMAGE.id}\n", "")
    as_json = await node.phantom("pull", "--json", "other:1")
    assert json.loads(as_json.out)["id"] == IMAGE.id
    assert (await node.phantom("pull", "none:1")).code == 1


async def test_load_names_what_came(node: Node, tmp_path: Path) -> None:
    absent = await node.phantom("load", "absent.tar")
    assert (absent.code, absent.err) == (1, "phantom: cannot load absent.tar: No such file\n")
    archive = tmp_path / "image.tar"
    archive.touch()
    outcome = await node.phantom("load", str(archive))
    assert outcome == Outcome(0, f"Loaded image: {BUSYBOX}\n", "1f1f1f1f1f1f: Already exists\n")
    node.daemon.failures["load"] = NotFound("image.tar: no index.json")
    broken = await node.phantom("load", str(archive))
    assert (broken.code, broken.err) == (1, "phantom: Error response from daemon: image.tar: no index.json\n")


async def test_images_and_rmi(node: Node) -> None:
    listed = await node.phantom("images")
    assert listed.out.splitlines()[1].split() == ["registry.test/busybox", "1", "c" * 13, "1.23MB"]
    assert json.loads((await node.phantom("--json", "images")).out)[0]["repo_tags"] == [BUSYBOX]
    absent = await node.phantom("rmi", "absent")
    assert (absent.code, absent.err) == (1, "phantom: No such image: absent\n")
    assert (await node.phantom("rmi", BUSYBOX)).out == f"Removed: {BUSYBOX}\n"
    assert node.daemon.images == {}


async def test_pools_shows_stock_and_trouble(node: Node) -> None:
    outcome = await node.phantom("pools")
    assert outcome.out.splitlines() == [
        "POOL      PROFILE        WANTED   WARM   STARTING   CLAIMED   OLDEST      HITS   MISSES   LAST ERROR",  # noqa: E501
        "default   pod            8        7      1          3         2 minutes   40     2        -",
        "node      host_network   2        0      0          0         -           0      0        clone: EPERM",  # noqa: E501
    ]  # fmt: skip
    first = json.loads((await node.phantom("pools", "--json")).out)[0]
    assert (first["size"], first["warm"], first["oldest_age"]) == (8, 7, 125_000_000_000)


async def test_policies_and_a_run_under_the_default_one(node: Node) -> None:
    outcome = await node.phantom("policies")
    assert outcome.out.splitlines() == [
        "POLICY    DEFAULT   HANDLERS      CONTAINERS   MASKED   READ-ONLY   UNMASK    CAPABILITIES   NEW PRIVILEGES   DIGEST",  # noqa: E501
        "default   -         -             0            1        2           allowed   2              allowed          ababababababa",  # noqa: E501
        'strict    yes       "", phantom   3            1        2           never     2              never            ababababababa',  # noqa: E501
    ]  # fmt: skip
    strict = json.loads((await node.phantom("policies", "--json")).out)[1]
    assert (strict["masked_paths"], strict["capabilities"]) == (["/proc/kallsyms"], ["CHOWN", "KILL"])
    assert strict["handlers"] == ["", "phantom"]
    assert (strict["can_unmask"], strict["no_new_privs"], strict["default"]) == (False, True, True)
    await node.phantom("run", BUSYBOX)
    (config,) = node.daemon.configs
    assert config.security.masked_paths == ("/proc/kallsyms",)
    assert config.security.readonly_paths == ("/proc/sys", "/proc/irq")


async def test_plan_of_what_is_not_there(node: Node) -> None:
    absent = await node.phantom("plan", "absent")
    assert (absent.code, absent.err) == (1, "phantom: No such pod: absent\n")
    assert (await node.phantom("plan")).code == 2
    await node.phantom("run", "-d", "--name", "web", BUSYBOX)
    elsewhere = await node.phantom("plan", "-c", "other", "web")
    assert (elsewhere.code, elsewhere.err) == (1, "phantom: No such container: other in web\n")
    node.daemon.failures["show_plan"] = NotFound("container 'x' not found")  # it went in between
    gone = await node.phantom("plan", "web")
    assert (gone.code, gone.err) == (1, "phantom: Error response from daemon: container 'x' not found\n")


async def test_plan_shows_ops_by_index_and_what_holds_the_process(node: Node) -> None:
    await node.phantom("run", "-d", "--name", "web", BUSYBOX)
    (container,) = node.daemon.containers.values()
    outcome = await node.phantom("plan", container.id[:6])
    assert outcome.out.splitlines() == [
        "OP   NAME    DOES",
        "0    PIVOT   pivot into the root",
        r"1    EXEC    exec sh -c a\nb\x1b[2J ü",
        "",
        f"container       {container.id}",
        f"pod             {container.sandbox_id}",
        "user            7:7",
        "pid namespace   its own",
    ]
    node.daemon.plan_is_sent = False
    assert (await node.phantom("plan", "web")).out.startswith("Made again from the container's record")
    shown = json.loads((await node.phantom("plan", "web", "--json")).out)
    assert shown == {
        "container_id": container.id,
        "pod_id": container.sandbox_id,
        "sent": False,
        "ops": [
            {"name": "PIVOT", "text": "pivot into the root"},
            {"name": "EXEC", "text": "exec sh -c a\nb\x1b[2J ü"},
        ],
        "facts": {"user": "7:7", "pid_namespace": "its own"},
    }


async def test_doctor_asks_the_daemon_and_else_looks_itself(node: Node, tmp_path: Path) -> None:
    outcome = await node.phantom("doctor")
    assert outcome.code == 0
    assert "daemon   ok" in outcome.out
    node.daemon.checks = (Check("seccomp", "missing", "ENOSYS", True), Check("CRIU", "missing", "no"))
    outcome = await node.phantom("doctor")
    assert outcome.code == 1
    assert "seccomp   missing (required)   ENOSYS" in outcome.out
    local = json.loads((await phantom(f"unix://{tmp_path}/absent", "doctor", "--json")).out)
    assert local["checks"][0]["name"] == "daemon"
    assert local["checks"][0]["state"] == "missing"
    assert {check["name"] for check in local["checks"]} >= {"kernel", "cgroups", "overlayfs", "seccomp"}


async def test_version_tells_both(node: Node, tmp_path: Path) -> None:
    outcome = await node.phantom("version")
    assert outcome.out.splitlines()[1] == "Daemon: phantom 9.8.7 (CRI v1)"
    alone = await phantom(f"unix://{tmp_path}/absent", "version", "--json")
    assert alone.code == 1
    assert json.loads(alone.out)["daemon"] is None


async def test_version_starts_without_grpc(tmp_path: Path) -> None:
    """Importing it is most of a command's start-up time."""
    program = (
        "import sys; from phantom_cri.cli import main; "
        f"main(['--host', 'unix://{tmp_path}/absent', 'version']); sys.exit('grpc' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    assert await asyncio.wait_for(process.wait(), 30) == 0
