"""Policies as data (`policies/*.yaml`), compiled into what a container's process is held to.

`load_policies(folder)` at start; `Policy.compile(security)` for each container.
"""

from __future__ import annotations

from phantom_cri.policy.apparmor import AppArmor
from phantom_cri.policy.capabilities import CapabilitySets, names_in
from phantom_cri.policy.policy import CompiledPolicy, Policy, SeccompFilter, load_policies
from phantom_cri.policy.selinux import Selinux

__all__ = [
    "AppArmor",
    "CapabilitySets",
    "CompiledPolicy",
    "Policy",
    "SeccompFilter",
    "Selinux",
    "load_policies",
    "names_in",
]
