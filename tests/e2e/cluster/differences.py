"""Tests that containerd with runc fails, each with the reason. One that passes there has to go from here."""

from __future__ import annotations

DIFFERENCES = {
    "test_who_traces_in_the_pods_pid_namespace_is_refused": (
        "its pods' process 1 is the pause program, which has nothing to take over; ours is the fragment"
    ),
}
"""The name of the test's function → why."""
