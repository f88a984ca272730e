"""One daemon for all tests of numbers and events, the same one as those of the lifecycle have."""

from tests.e2e.lifecycle.conftest import cri, crictl, make_pod, node, pod, shared

__all__ = ["cri", "crictl", "make_pod", "node", "pod", "shared"]
