"""What people read: tables, ages, sizes, bars; and logs as the container wrote them."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phantom_cri.api.cri.v1 import api_pb2 as cri
from phantom_cri.api.phantom.v1 import node_pb2 as wire
from phantom_cri.cli import progress, tables
from phantom_cri.cli.arguments import build_parser
from phantom_cri.cli.failure import Failure, start_exit_code
from phantom_cri.cli.images import images_table
from phantom_cri.cli.logs import LogFollower
from phantom_cri.cli.pods import match_pod, ps_table
from phantom_cri.cli.run import start_sentence

SECOND = 1_000_000_000
STAMP = b"2026-01-02T03:04:05.000000006Z "


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (7200, "2 hours"),
        (86400 * 6, "6 days"),
        (86400 * 8, "1 week"),
        (86400 * 45, "1 month"),
        (86400 * 800, "2 years"),
    ],
)
def test_age(seconds: int, text: str) -> None:
    assert tables.age(seconds * SECOND) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_234_567, "1.23MB"), (999_999, "1MB"), (31 * 10**9, "31GB")],
)
def test_size(count: int, text: str) -> None:
    assert tables.size(count) == text


def test_duration() -> None:
    assert [tables.duration(n) for n in (4_200, 850_000, 12_340_000, 1_250_000_000)] == [
        "0.00 ms",
        "0.85 ms",
        "12.3 ms",
        "1.25 s",
    ]


def test_ps_table() -> None:
    row = {
        "id": "a" * 64,
        "image": "busybox:1",
        "created_at": 0,
        "state": "exited",
        "exit_code": 137,
        "finished_at": 60 * SECOND,
        "name": "job",
        "pod_id": "b" * 64,
        "pod": "job",
        "start": "cold",
        "cold_reason": "empty",
    }
    running = {**row, "state": "running", "image": "sha256:" + "c" * 64, "start": "warm", "cold_reason": ""}
    assert ps_table([row, running], 180 * SECOND).splitlines() == [
        "CONTAINER ID    IMAGE           CREATED         STATUS                       NAME   POD ID          POD   START",  # noqa: E501
        "aaaaaaaaaaaaa   busybox:1       3 minutes ago   Exited (137) 2 minutes ago   job    bbbbbbbbbbbbb   job   cold: empty",  # noqa: E501
        "aaaaaaaaaaaaa   ccccccccccccc   3 minutes ago   Running                      job    bbbbbbbbbbbbb   job   warm",  # noqa: E501
    ]  # fmt: skip


def test_images_table_has_a_row_per_name() -> None:
    both = cri.Image(
        id="sha256:" + "e" * 64,
        repo_tags=["localhost:5000/a:2", "localhost:5000/a:1"],
        repo_digests=["localhost:5000/a@sha256:" + "f" * 64],
        size=5,
    )
    untagged = cri.Image(id="sha256:" + "d" * 64, repo_digests=["b@sha256:" + "9" * 64], size=5)
    assert images_table([untagged, both], digests=True).splitlines() == [
        "IMAGE              TAG      DIGEST                IMAGE ID        SIZE",
        "b                  <none>   sha256:999999999999   ddddddddddddd   5B",
        "localhost:5000/a   1        sha256:ffffffffffff   eeeeeeeeeeeee   5B",
        "localhost:5000/a   2        sha256:ffffffffffff   eeeeeeeeeeeee   5B",
    ]
    assert images_table([]) == "IMAGE   TAG   IMAGE ID   SIZE"


def test_pods_are_named_by_name_or_the_beginning_of_an_id() -> None:
    pods = [
        cri.PodSandbox(id="aa11", metadata=cri.PodSandboxMetadata(name="one")),
        cri.PodSandbox(id="aa22", metadata=cri.PodSandboxMetadata(name="aa1")),
    ]
    containers = [cri.Container(id="cc33", pod_sandbox_id="aa22")]
    assert match_pod("one", pods, containers) == "aa11"
    assert match_pod("aa1", pods, containers) == "aa22"  # a whole name before the beginning of an id
    assert match_pod("cc", pods, containers) == "aa22"
    with pytest.raises(Failure, match="aa is ambiguous, it matches 2 pods: aa11, aa22"):
        match_pod("aa", pods, containers)
    for absent in ("x", ""):
        with pytest.raises(Failure, match="No such pod"):
            match_pod(absent, pods, containers)


def test_exit_codes_of_what_never_ran() -> None:
    assert start_exit_code('exec: "x": executable file not found in $PATH') == 127
    assert start_exit_code('exec: "x": is a directory') == 126
    assert start_exit_code("op 3, mount /exec: ENOENT (No such file or directory)") == 125


def test_start_sentence_of_a_cold_start() -> None:
    assert start_sentence(wire.PodStart(cold_reason="host_pid")) == "start: cold (host_pid)"


def test_bars() -> None:
    state = wire.Layer.State
    digest = "sha256:0123456789abcdef"
    half = wire.Layer(digest=digest, state=state.DOWNLOADING, done=500_000, total=1_000_000)
    unknown = wire.Layer(digest=digest, state=state.UNPACKING, done=2000)
    assert progress.bar_line(half) == f"0123456789ab: Downloading [{'=' * 15}>{' ' * 14}] 500kB/1MB"
    assert progress.bar_line(unknown) == "0123456789ab: Unpacking 2kB"
    assert progress.bar_line(wire.Layer(digest=digest, state=state.EXISTS)) == "0123456789ab: Already exists"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_bars_are_drawn_over_each_other() -> None:
    async def messages() -> AsyncIterator[wire.Progress]:
        for done in (1, 2):
            yield wire.Progress(layers=[wire.Layer(digest="sha256:ab", state="DOWNLOADING", done=done)])
        yield wire.Progress(images=[wire.LoadedImage(id="x")])

    terminal = _Terminal()
    assert [image.id for image in await progress.follow(messages(), output=terminal)] == ["x"]
    first, *later = terminal.getvalue().split("\x1b[1A")
    assert first == "\rab: Downloading 1B\x1b[K\n"
    assert later[0] == "\rab: Downloading 2B\x1b[K\n"


async def test_a_transfer_without_an_image_is_a_failure() -> None:
    async def messages() -> AsyncIterator[wire.Progress]:
        yield wire.Progress()

    with pytest.raises(Failure, match="without an image"):
        await progress.follow(messages(), quiet=True)


def written(log: LogFollower) -> list[tuple[str, bytes]]:
    return [(line.stream, line.text) for line in log.read()]


def test_follows_a_log_that_grows_and_waits_for_whole_lines(tmp_path: Path) -> None:
    log = LogFollower(str(tmp_path / "0.log"))
    assert list(log.read()) == []
    with (tmp_path / "0.log").open("ab", buffering=0) as writer:
        writer.write(STAMP + b"stdout F a b  c\n" + STAMP + b"std")
        assert written(log) == [("stdout", b"a b  c\n")]
        writer.write(b"err P no end\n" + STAMP + b"stdout F \n" + STAMP + b"stdout F \xff\n")
        assert written(log) == [("stderr", b"no end"), ("stdout", b"\n"), ("stdout", b"\xff\n")]
        assert list(log.read()) == []
    log.close()
    log.close()


def test_refuses_what_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "0.log").write_bytes(b"hello\n")
    log = LogFollower(str(tmp_path / "0.log"))
    with pytest.raises(ValueError, match="not a line of a CRI log"):
        list(log.read())
    log.close()


def test_the_page_names_every_command_and_flag() -> None:
    page = (Path(__file__).parents[3] / "docs/cli.md").read_text()
    (commands,) = [
        action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]
    for name, parser in commands.choices.items():
        assert f"`phantom {name}" in page
        flags = {flag for action in parser._actions for flag in action.option_strings} - {"-h", "--help"}
        absent = [flag for flag in flags if not re.search(rf"`{re.escape(flag)}[` ]", page)]
        assert not absent, name
