"""Checks CRI requests, once, and resolves them into values that plans are made from."""

from __future__ import annotations

from phantom_cri.requests.annotations import warn_unsupported
from phantom_cri.requests.container import Resolved, Surroundings, container_spec, resolve
from phantom_cri.requests.devices import DeviceRule, device_rules, resolve_devices
from phantom_cri.requests.hooks import check_hook, hooks_of
from phantom_cri.requests.injection import all_devices, effective, injected
from phantom_cri.requests.mountinfo import parts_mounted
from phantom_cri.requests.mounts import volume_folder
from phantom_cri.requests.pod import check_pod, checked_sysctls
from phantom_cri.requests.process import merged, with_terminal
from phantom_cri.requests.resources import with_changes
from phantom_cri.requests.signals import signal_name, signal_number
from phantom_cri.requests.user_namespace import pod_ids

__all__ = [
    "DeviceRule",
    "Resolved",
    "Surroundings",
    "all_devices",
    "check_hook",
    "check_pod",
    "checked_sysctls",
    "container_spec",
    "device_rules",
    "effective",
    "hooks_of",
    "injected",
    "merged",
    "parts_mounted",
    "pod_ids",
    "resolve",
    "resolve_devices",
    "signal_name",
    "signal_number",
    "volume_folder",
    "warn_unsupported",
    "with_changes",
    "with_terminal",
]
