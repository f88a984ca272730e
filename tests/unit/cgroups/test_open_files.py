from __future__ import annotations

import os
import resource
import socket

import pytest

from phantom_cri.cgroups import open_files, open_files_limit
from phantom_cri.cgroups.open_files import count_open_files

NOBODY = 1 << 30


def test_a_process_that_is_gone_counts_as_none() -> None:
    assert count_open_files([NOBODY]) == (0, 0)
    assert open_files_limit(NOBODY) is None


def test_this_process() -> None:
    files, sockets = count_open_files([os.getpid(), NOBODY])
    with socket.socket(), open(os.devnull):
        assert count_open_files([os.getpid()]) == (files + 2, sockets + 1)
    assert open_files_limit(os.getpid()) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_no_more_than_so_many_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "MOST_FILES", 2)
    assert count_open_files([os.getpid(), os.getpid()])[0] == 2
