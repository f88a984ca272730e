"""Policies as data (`policies/*.yaml`), compiled to the confinement of a container's processes.

`PolicyBook.load(folder)` at start; `Policy.compile(security)` once for each container; `KeptPolicies` stores
them for later daemons.
"""

from __future__ import annotations

from phantom_cri.policy.apparmor import AppArmor
from phantom_cri.policy.book import PolicyBook
from phantom_cri.policy.capabilities import names_in, unknown_names
from phantom_cri.policy.given import given_filter, mask_of_names
from phantom_cri.policy.kept import KeptPolicies, reference
from phantom_cri.policy.oci import SeccompDocument
from phantom_cri.policy.policy import Policy, SeccompFilter
from phantom_cri.policy.selinux import Selinux
from phantom_cri.policy.statistics import PolicyStatistics, statistics

__all__ = [
    "AppArmor",
    "KeptPolicies",
    "Policy",
    "PolicyBook",
    "PolicyStatistics",
    "SeccompDocument",
    "SeccompFilter",
    "Selinux",
    "given_filter",
    "mask_of_names",
    "names_in",
    "reference",
    "statistics",
    "unknown_names",
]
