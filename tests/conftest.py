"""What tests need of the machine: a missing privilege skips at home and fails in CI."""

from __future__ import annotations

import os

import pytest

from tests import kernel_features

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Checks the `root` and `kernel` markers before any fixture of the test is made."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        refuse("needs root")
    for marker in item.iter_markers("kernel"):
        for feature in marker.args:
            if reason := kernel_features.missing(feature):
                # A kernel cannot be installed by CI: what it lacks is skipped there too, with its reason.
                pytest.skip(f"kernel: {reason}")


def refuse(reason: str) -> None:
    """Skips the test; in CI, where the reason has to be taken care of, fails it."""
    if IN_CI:
        pytest.fail(f"CI has to provide this: {reason}", pytrace=False)
    pytest.skip(reason)
