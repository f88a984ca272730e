"""The plan language: instructions for a fragment, as frozen values that can be described and encoded.

`ContainerSpec` is the input of a container's plan; `container_plan`, `exec_plan`, `claim_plan` and
`spawn_plan` make plans; `Donations` owns the fds that are sent with a plan.
"""

from __future__ import annotations

from phantom_cri.plans.adopt_plan import claim_plan, join_plan, spawn_plan, user_namespace_plan
from phantom_cri.plans.constants import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    KIND_CONTAINER,
    KIND_EXEC,
)
from phantom_cri.plans.container_plan import container_plan, wants_template
from phantom_cri.plans.donations import Donations
from phantom_cri.plans.exec_plan import ExecLaunch, exec_plan
from phantom_cri.plans.plan import Plan
from phantom_cri.plans.spec import (
    Bind,
    CgroupView,
    ContainerSpec,
    GivenMount,
    Hooks,
    HostDevice,
    Io,
    Limit,
    MountRoot,
    Namespaces,
    OverlayRoot,
    PodIds,
    Process,
)

__all__ = [
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUTS",
    "KIND_CONTAINER",
    "KIND_EXEC",
    "Bind",
    "CgroupView",
    "ContainerSpec",
    "Donations",
    "ExecLaunch",
    "GivenMount",
    "Hooks",
    "HostDevice",
    "Io",
    "Limit",
    "MountRoot",
    "Namespaces",
    "OverlayRoot",
    "Plan",
    "PodIds",
    "Process",
    "claim_plan",
    "container_plan",
    "exec_plan",
    "join_plan",
    "spawn_plan",
    "user_namespace_plan",
    "wants_template",
]
