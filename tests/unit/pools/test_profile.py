"""Which pods a pool's fragments fit, and what is said of those that none fits."""

from __future__ import annotations

from typing import Any

import pytest

from phantom_cri.model import NamespaceOptions
from phantom_cri.pools import Profile, choose, misfit_reason

PLAIN, HOST = Profile("plain"), Profile("host", host_network=True, host_pid=True)


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ({}, PLAIN),
        ({"pid": "container"}, PLAIN),
        ({"network": "node", "pid": "node"}, HOST),
        ({"network": "node"}, None),
        ({"user": "pod"}, None),
    ],
)
def test_the_first_profile_that_fits(modes: dict[str, Any], expected: Profile | None) -> None:
    assert choose((PLAIN, HOST), NamespaceOptions(**modes)) == expected


@pytest.mark.parametrize(
    ("modes", "reason"),
    [
        ({"user": "pod"}, "user_namespace"),
        ({"network": "node", "ipc": "node"}, "host_network+host_ipc"),
        ({}, "no_pool"),
    ],
)
def test_why_none_fits(modes: dict[str, Any], reason: str) -> None:
    assert misfit_reason(NamespaceOptions(**modes)) == reason
