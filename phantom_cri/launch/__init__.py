"""Plans for fragments, and the daemon's end of a fragment's life.

`container_plan`, `exec_plan`, `claim_plan` and `birth_plan` decide; `spawn` bears a fragment; `Fragment`
speaks with it; `Donations` owns the fds that travel along.
"""

from __future__ import annotations

from phantom_cri.launch.adopt_plan import (
    birth_plan,
    checked_hostname,
    checked_sysctls,
    claim_plan,
)
from phantom_cri.launch.bits import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    KIND_CONTAINER,
    KIND_EXEC,
)
from phantom_cri.launch.checks import check_container, check_namespaces
from phantom_cri.launch.container_launch import CgroupView, ContainerLaunch
from phantom_cri.launch.container_plan import container_plan, wants_template
from phantom_cri.launch.descriptors import moved_up
from phantom_cri.launch.devices import DeviceRule, HostDevice, device_rules, resolve_devices
from phantom_cri.launch.donations import Donations
from phantom_cri.launch.exec_plan import ExecLaunch, exec_plan
from phantom_cri.launch.failure import ExecError, FragmentLost, LaunchError
from phantom_cri.launch.figures import Figures, read_figures
from phantom_cri.launch.fragment import Attached, Entry, Event, Exited, Fragment, Hello, Lost, Resync
from phantom_cri.launch.message import Exit, Phase, State
from phantom_cri.launch.mountinfo import parts_mounted
from phantom_cri.launch.mounts import anonymous_volumes, volume_folder
from phantom_cri.launch.plan import Plan
from phantom_cri.launch.process import Process, merged
from phantom_cri.launch.processes import Started, identify, open_process, reap, watch_death
from phantom_cri.launch.spawn import SOCKET, Born, end, spawn
from phantom_cri.launch.user_namespace import (
    PodIds,
    check_mapped,
    check_pod_user,
    pod_ids,
    user_namespace_plan,
)

__all__ = [
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUTS",
    "KIND_CONTAINER",
    "KIND_EXEC",
    "SOCKET",
    "Attached",
    "Born",
    "CgroupView",
    "ContainerLaunch",
    "DeviceRule",
    "Donations",
    "Entry",
    "Event",
    "ExecError",
    "ExecLaunch",
    "Exit",
    "Exited",
    "Figures",
    "Fragment",
    "FragmentLost",
    "Hello",
    "HostDevice",
    "LaunchError",
    "Lost",
    "Phase",
    "Plan",
    "PodIds",
    "Process",
    "Resync",
    "Started",
    "State",
    "anonymous_volumes",
    "birth_plan",
    "check_container",
    "check_mapped",
    "check_namespaces",
    "check_pod_user",
    "checked_hostname",
    "checked_sysctls",
    "claim_plan",
    "container_plan",
    "device_rules",
    "end",
    "exec_plan",
    "identify",
    "merged",
    "moved_up",
    "open_process",
    "parts_mounted",
    "pod_ids",
    "read_figures",
    "reap",
    "resolve_devices",
    "spawn",
    "user_namespace_plan",
    "volume_folder",
    "wants_template",
    "watch_death",
]
