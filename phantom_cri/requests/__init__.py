"""What a CRI request means: checked once, and resolved into values that plans are made from."""

from __future__ import annotations

from phantom_cri.requests.checks import check_container, check_namespaces
from phantom_cri.requests.devices import DeviceRule, HostDevice, device_rules, resolve_devices
from phantom_cri.requests.mountinfo import parts_mounted
from phantom_cri.requests.mounts import anonymous_volumes, volume_folder
from phantom_cri.requests.process import Process, merged
from phantom_cri.requests.user_namespace import (
    PodIds,
    check_mapped,
    check_pod_user,
    pod_ids,
    user_namespace_plan,
)

__all__ = [
    "DeviceRule",
    "HostDevice",
    "PodIds",
    "Process",
    "anonymous_volumes",
    "check_container",
    "check_mapped",
    "check_namespaces",
    "check_pod_user",
    "device_rules",
    "merged",
    "parts_mounted",
    "pod_ids",
    "resolve_devices",
    "user_namespace_plan",
    "volume_folder",
]
