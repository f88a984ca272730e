"""A seccomp profile, from our YAML or from an OCI JSON file."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from functools import cached_property, lru_cache

from phantom_cri.codec import Record, to_json

MACHINE = platform.machine()
"""The architecture's kernel name: x86_64, aarch64, s390x, …"""


class Comparison(Record, frozen=True):
    """`op`: a key of libseccomp.COMPARE. MASKED_EQ: (argument & first) == second."""

    argument: int
    op: str
    first: int
    second: int = 0


class Rule(Record, frozen=True):
    """`action`: the kernel's number. All `comparisons` must match. Conditions are for compilation."""

    syscalls: tuple[str, ...]
    action: int
    comparisons: tuple[Comparison, ...] = ()
    with_capabilities: tuple[str, ...] = ()  # all of them
    without_capabilities: tuple[str, ...] = ()  # none of them
    machines: tuple[str, ...] = ()  # empty: all
    not_machines: tuple[str, ...] = ()
    min_kernel: str = ""

    def applies(self, capabilities: frozenset[str]) -> bool:
        return (
            capabilities.issuperset(self.with_capabilities)
            and capabilities.isdisjoint(self.without_capabilities)
            and (not self.machines or MACHINE in self.machines)
            and MACHINE not in self.not_machines
            and (not self.min_kernel or kernel_version() >= version(self.min_kernel))
        )


class Profile(Record, frozen=True, dict=True):
    """`source`: for errors. `architectures`: in addition to the native one, by libseccomp's names."""

    source: str
    default_action: int
    architectures: tuple[str, ...]
    rules: tuple[Rule, ...]
    flags: int = 0  # SECCOMP_FILTER_FLAG_*

    @cached_property
    def digest(self) -> str:
        """Of its content, without `source`."""
        said = (self.default_action, self.architectures, self.rules, self.flags)
        return hashlib.sha256(to_json(said)).hexdigest()

    @cached_property
    def capabilities_that_matter(self) -> frozenset[str]:
        named = (rule.with_capabilities + rule.without_capabilities for rule in self.rules)
        return frozenset(name for names in named for name in names)


_VERSION = re.compile(r"([0-9]{1,5})\.([0-9]{1,5})")


def version(text: str) -> tuple[int, int]:
    """`6.18.44-amd64` → (6, 18). Raises ValueError."""
    match = _VERSION.match(text)
    if match is None:
        raise ValueError(f"kernel version {text!r}: want e.g. 4.8")
    return int(match[1]), int(match[2])


@lru_cache(maxsize=1)
def kernel_version() -> tuple[int, int]:
    return version(os.uname().release)
