"""What a CRI request means: checked once, and resolved into values that plans are made from."""

from __future__ import annotations

from phantom_cri.requests.container import Resolved, Surroundings, check_namespaces, container_spec, resolve
from phantom_cri.requests.devices import DeviceRule, device_rules, resolve_devices
from phantom_cri.requests.mountinfo import parts_mounted
from phantom_cri.requests.mounts import volume_folder
from phantom_cri.requests.pod import checked_hostname, checked_sysctls
from phantom_cri.requests.process import merged, with_terminal
from phantom_cri.requests.user_namespace import check_mapped, check_pod_user, pod_ids

__all__ = [
    "DeviceRule",
    "Resolved",
    "Surroundings",
    "check_mapped",
    "check_namespaces",
    "check_pod_user",
    "checked_hostname",
    "checked_sysctls",
    "container_spec",
    "device_rules",
    "merged",
    "parts_mounted",
    "pod_ids",
    "resolve",
    "resolve_devices",
    "volume_folder",
    "with_terminal",
]
