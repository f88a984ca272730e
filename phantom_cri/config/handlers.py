"""Runtime handlers, and the pools of warm fragments that their pods are started from."""

from __future__ import annotations

from phantom_cri.codec import Record
from phantom_cri.config.rules import check, is_label, seconds

DRIVERS = ("native",)
"""Names of the runtime drivers (`phantom_cri.drivers`)."""


class PoolNamespaces(Record, frozen=True):
    """Which of the node's namespaces the fragments of a pool use instead of their own."""

    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False


class HandlerConfig(Record, frozen=True):
    """A runtime handler, named by a RuntimeClass's `handler`. `pools`: names, in order; empty: all.

    policy: name of the policy for its pods' containers; empty: `policy.default`.
    """

    name: str
    pools: tuple[str, ...] = ()
    driver: str = "native"
    policy: str = ""

    def __post_init__(self) -> None:
        fits = self.name == "" or is_label(self.name)
        check(fits, "name", self.name, "1 to 63 of a-z, 0-9 and -, or empty for the default")
        check(self.driver in DRIVERS, "driver", self.driver, f"the name of a driver: {', '.join(DRIVERS)}")
        fits = self.policy == "" or is_label(self.policy)
        check(fits, "policy", self.policy, "the name of a policy, or empty for policy.default")


class PoolConfig(Record, frozen=True):
    """A pool that keeps `size` warm fragments for pods with these namespaces."""

    name: str
    size: int = 8
    max_age: str = "1h"
    namespaces: PoolNamespaces = PoolNamespaces()

    def __post_init__(self) -> None:
        check(is_label(self.name), "name", self.name, "1 to 63 of a-z, 0-9 and -")
        check(0 <= self.size <= 4096, "size", self.size, "between 0 and 4096")
        check(seconds(self.max_age, "max_age") >= 1, "max_age", self.max_age, "1s or longer")

    @property
    def max_age_seconds(self) -> float:
        return seconds(self.max_age, "max_age")


DEFAULT_HANDLERS = (HandlerConfig(""), HandlerConfig("phantom"))
"""Pods without a RuntimeClass, and those of the RuntimeClass that the documentation and the chart use."""
