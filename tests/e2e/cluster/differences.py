"""Tests that containerd with runc fails, each with the reason. One that passes there has to go from here."""

from __future__ import annotations

DIFFERENCES: dict[str, str] = {}
"""The name of the test's function → why."""
