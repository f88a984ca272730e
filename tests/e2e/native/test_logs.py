"""Logs: what lands in the file, in which pieces, and what happens when the file takes no more."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.native import raw
from tests.e2e.native.bed import Bed, bound, open_gate, start
from tests.e2e.native.raw import Fragment, eventually

pytestmark = pytest.mark.root

LINE_MAX = 16384


@pytest.fixture
def tiny_disk(scratch: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    folder = scratch / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1])
    raise AssertionError


def test_both_streams(bed: Bed, fragment: Fragment) -> None:
    bed.run(fragment, bed.shell("echo out; echo err >&2; echo; echo two words"))
    assert sorted(bed.log_lines()) == [
        ("stderr", "F", "err"),
        ("stdout", "F", ""),
        ("stdout", "F", "out"),
        ("stdout", "F", "two words"),
    ]


def test_times_are_now_and_in_order(bed: Bed, fragment: Fragment) -> None:
    before = time.time_ns()
    bed.run(fragment, bed.shell("for i in 1 2 3 4 5; do echo $i; sleep 0.01; done"))
    stamps = [line.split(" ")[0] for line in bed.log_path.read_text().splitlines()]
    seconds = [
        int(time.mktime(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))) - time.timezone for stamp in stamps
    ]
    exact = [whole * 10**9 + int(stamp[20:29]) for whole, stamp in zip(seconds, stamps, strict=True)]
    assert exact == sorted(exact)
    assert len(set(exact)) == 5
    assert before <= exact[0] and exact[-1] <= time.time_ns()


@pytest.mark.parametrize("length", [LINE_MAX - 1, LINE_MAX, LINE_MAX + 1, 3 * LINE_MAX + 5])
def test_long_lines_are_split(bed: Bed, fragment: Fragment, length: int) -> None:
    source = bed.scratch / "source"
    source.write_text("x" * length + "\nnext\n")
    bed.run(fragment, bed.container(["/bin/cat", "/source"], **bound(source, "/source")))
    lines = bed.log_lines()
    assert lines[-1] == ("stdout", "F", "next")
    pieces = lines[:-1]
    assert [len(text) for _, _, text in pieces] == [
        min(LINE_MAX, length - start) for start in range(0, length, LINE_MAX)
    ]
    assert [tag for _, tag, _ in pieces] == ["P"] * (len(pieces) - 1) + ["F"]


def test_unterminated_last_line(bed: Bed, fragment: Fragment) -> None:
    bed.run(fragment, bed.container(["/bin/echo", "-n", "no end"]))
    assert bed.log_lines() == [("stdout", "P", "no end")]


def test_a_line_in_pieces_is_one_line(bed: Bed, fragment: Fragment) -> None:
    bed.run(fragment, bed.shell("echo -n one; sleep 0.02; echo -n ' two'; sleep 0.02; echo ' three'"))
    assert bed.log_lines() == [("stdout", "F", "one two three")]


def test_no_log_file_means_dropped(bed: Bed, fragment: Fragment) -> None:
    plan = bed.shell("seq 200000; exit 9")
    plan.log_slot = -1
    ended = bed.run(fragment, plan).exit
    assert (ended.code, ended.dropped_lines) == (9, 0)
    assert bed.log_path.read_text() == ""


def test_flood_is_complete_and_memory_stays_small(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.shell("seq 300000; seq 100000 >&2"))
    high = rss_kib(fragment.pid)
    while (entry := fragment.client.ask(raw.GET, id="c")).value != raw.ENDED:
        for fd in entry.fds:
            os.close(fd)
        high = max(high, rss_kib(fragment.pid))
    out = [text for stream, tag, text in bed.log_lines() if stream == "stdout"]
    err = [text for stream, tag, text in bed.log_lines() if stream == "stderr"]
    assert out == [str(number) for number in range(1, 300001)]
    assert err == [str(number) for number in range(1, 100001)]
    assert high < 300


def test_two_floods_share(bed: Bed, fragment: Fragment) -> None:
    """A container that says little is heard while another one shouts."""
    start(fragment, "loud", bed.container(["/bin/yes"], log=Path("/dev/null")))
    quiet = bed.scratch / "quiet"
    began = time.monotonic()
    start(fragment, "quiet", bed.shell("echo heard; exit 0", log=quiet))
    fragment.client.exited("quiet")
    assert bed.log_lines(quiet) == [("stdout", "F", "heard")]
    assert time.monotonic() - began < 2
    fragment.client.ask(raw.SIGNAL, id="loud", value=9)
    fragment.client.exited("loud")


def test_full_disk_drops_whole_lines_and_the_container_goes_on(
    bed: Bed, fragment: Fragment, tiny_disk: Path
) -> None:
    log = tiny_disk / "log"
    ended = bed.run(fragment, bed.shell("seq 50000; exit 8", log=log)).exit
    lines = bed.log_lines(log)
    assert ended.code == 8
    assert ended.dropped_lines > 0
    assert len(lines) + ended.dropped_lines == 50000
    assert [text for _, _, text in lines] == [str(number) for number in range(1, len(lines) + 1)]
    assert log.read_bytes().endswith(b"\n")


def test_room_again_after_a_full_disk(bed: Bed, fragment: Fragment, tiny_disk: Path) -> None:
    log, ballast = tiny_disk / "log", tiny_disk / "ballast"
    ballast.write_bytes(b"x" * (124 << 10))
    pid = start(fragment, "c", bed.shell("seq 1000; read x < /dev/gate; echo back", log=log))
    eventually(lambda: bed.log_lines(log) and log.stat().st_size > 3800)
    ballast.unlink()
    open_gate(pid)
    ended = fragment.client.exited("c").exit
    lines = bed.log_lines(log)
    assert lines[-1] == ("stdout", "F", "back")
    assert len(lines) - 1 + ended.dropped_lines == 1000
    assert ended.dropped_lines > 0


def test_reopen_goes_on_in_the_new_file(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.shell("i=0; while true; do i=$((i+1)); echo $i; sleep 0.002; done"))
    eventually(lambda: bed.log_path.stat().st_size > 200)
    old, new = bed.scratch / "log.1", bed.log_path
    new.rename(old)
    fragment.client.ask(raw.REOPEN, id="c", fds=[bed.open(new, os.O_WRONLY | os.O_CREAT | os.O_APPEND)])
    frozen = old.read_bytes()
    eventually(lambda: new.stat().st_size > 200)
    fragment.client.ask(raw.SIGNAL, id="c", value=9)
    fragment.client.exited("c")
    assert old.read_bytes() == frozen
    numbers = [int(text) for _, _, text in bed.log_lines(old) + bed.log_lines(new)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_somebody_who_keeps_the_pipe_delays_the_end_by_a_second(bed: Bed, fragment: Fragment) -> None:
    pid = start(fragment, "c", bed.shell("echo said; read x < /dev/gate"))
    eventually(lambda: bed.log_path.stat().st_size > 0)
    kept = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)
    try:
        fragment.client.ask(raw.SIGNAL, id="c", value=9)
        began = time.monotonic()
        assert fragment.client.exited("c").exit.signal in (0, 9)
        assert 0.5 < time.monotonic() - began < 3
    finally:
        os.close(kept)
    assert bed.log_lines() == [("stdout", "F", "said")]


def test_log_keeps_up(bed: Bed, fragment: Fragment) -> None:
    """Lines of 100 bytes at 10 MB/s and more, on a machine that others use too; `bench` measures it alone."""
    source = bed.scratch / "source"
    source.write_bytes(b"".join(b"%099d\n" % number for number in range(400000)))
    began = time.monotonic()
    bed.run(fragment, bed.container(["/bin/cat", "/source"], **bound(source, "/source")))
    took = time.monotonic() - began
    assert bed.log_path.stat().st_size == 400000 * (100 + 40)
    assert 40 / took > 10, f"{40 / took:.0f} MB/s"
