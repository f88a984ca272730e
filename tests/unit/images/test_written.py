from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from phantom_cri.images import written
from phantom_cri.images.tree import Tree
from phantom_cri.images.written import WrittenLayers, entries


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[WrittenLayers]:
    layers = WrittenLayers(lambda container_id: f"{tmp_path}/{container_id}", "/mount")
    yield layers
    layers.close()


def test_what_is_not_there_is_not_told(layers: WrittenLayers) -> None:
    assert layers.usage(["gone"], 5) == {}


def test_a_layer(layers: WrittenLayers, tmp_path: Path) -> None:
    upper = tmp_path / "c"
    (upper / "deep/deeper").mkdir(parents=True)
    (upper / "deep/file").write_bytes(b"x" * 100_000)
    os.link(upper / "deep/file", upper / "twin")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/big").write_bytes(b"x" * 1_000_000)
    (upper / "way-out").symlink_to(tmp_path / "outside")
    (usage,) = layers.usage(["c"], 5).values()
    assert usage.mountpoint == "/mount" and abs(usage.timestamp - time.time_ns()) < 5e9
    assert usage.inodes_used == 5, "itself, two folders, the file with two names, the link"
    assert 100_000 <= usage.used_bytes < 200_000


def test_a_count_is_told_again_until_it_is_old(
    layers: WrittenLayers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").mkdir()
    first = layers.usage(["c"], 5)
    (tmp_path / "c/file").touch()
    assert layers.usage(["c"], 5) == first
    monkeypatch.setattr(written, "FRESH_S", 0.0)
    deadline = time.monotonic() + 5
    while layers.usage(["c"], 5)["c"].inodes_used != 2:
        assert time.monotonic() < deadline
    layers.forget("c")
    layers.forget("c")
    while (again := layers.usage(["c"], 5).get("c")) is None:  # a count that was just ending is forgotten too
        assert time.monotonic() < deadline
    assert again.inodes_used == 2


def test_nobody_waits_for_a_long_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c").mkdir()
    for number in range(20):
        (tmp_path / f"c/{number}").touch()
    monkeypatch.setattr(written, "_STRIDE", 1)
    goes_on, rests = threading.Event(), threading.Event()

    def rest(seconds: float) -> bool:
        rests.set()
        goes_on.wait(5)
        return False

    layers = WrittenLayers(lambda container_id: f"{tmp_path}/{container_id}", "/mount")
    monkeypatch.setattr(layers._closing, "wait", rest)
    assert layers.usage(["c"], 0.01) == {}
    assert rests.wait(5)
    assert layers.usage(["c"], 0) == {}, "and it is counted once, not twice"
    goes_on.set()
    assert layers.usage(["c"], 5)["c"].inodes_used == 21
    layers.close()


def test_a_folder_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "c/a").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    with Tree(f"{tmp_path}/c") as tree:
        walk = entries(tree)
        next(walk)  # the root
        next(walk)  # the folder: seen, not opened yet
        (tmp_path / "c/a").rmdir()
        (tmp_path / "c/a").symlink_to(tmp_path / "outside")
        assert not list(walk)


def test_the_end_does_not_wait_for_a_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c").mkdir()
    monkeypatch.setattr(written, "_STRIDE", 1)
    monkeypatch.setattr(written, "_WORK_SHARE", 1e-9)
    layers = WrittenLayers(lambda container_id: f"{tmp_path}/{container_id}", "/mount")
    assert layers.usage(["c"], 0.01) == {}
    began = time.monotonic()
    layers.close()
    assert time.monotonic() - began < 5
