"""Two daemons on one directory: the second is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phantom_cri.daemon.ownership import Ownership
from phantom_cri.errors import FailedPrecondition


def test_the_second_owner_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    root, state = str(tmp_path / "root"), str(tmp_path / "state")
    first = Ownership(root, state)
    with pytest.raises(
        FailedPrecondition, match=f"{root} is in use by another phantom-cri, pid {os.getpid()}"
    ):
        Ownership(root, str(tmp_path / "other"))
    with pytest.raises(FailedPrecondition, match=state):
        Ownership(str(tmp_path / "third"), state)
    first.close()
    Ownership(root, state).close()
