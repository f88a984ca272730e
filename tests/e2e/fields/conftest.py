"""The daemon, clients and pods of the lifecycle's tests: the same for every field."""

from __future__ import annotations

from tests.e2e.lifecycle.conftest import cri, make_pod, node, pod, shared

__all__ = ["cri", "make_pod", "node", "pod", "shared"]
