"""Collects the input of a container's plan: from cgroups, policy, images and the pod."""

from __future__ import annotations

import os
from collections.abc import Sequence

from phantom_cri import cgroups, codec, plans, requests
from phantom_cri.lifecycle.confinement import policy_of, target_of
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.model import ContainerRecord
from phantom_cri.plans import ContainerSpec, HostDevice, OverlayRoot, Process
from phantom_cri.requests import Resolved, Surroundings

POD_FILES = {"/etc/resolv.conf": "resolv.conf", "/etc/hosts": "hosts", "/etc/hostname": "hostname"}
"""Where a container finds its pod's files, unless covered by a mount of its own."""


def resolved_of(runtime: Runtime, pod: Pod, container: Container) -> Resolved:
    """The container's resolved request; resolved again for a container of an earlier daemon."""
    if container.resolved is None:
        container.resolved = runtime.driver_of(container.record).resolve(container.record, pod.record)
    return container.resolved


def container_spec(runtime: Runtime, pod: Pod, container: Container) -> ContainerSpec:
    record = container.record
    pod_folder = runtime.records.pod_folder(pod.id)
    snapshot = runtime.images.snapshot_of(record.id, record.layers)
    namespaces = record.config.security.namespaces
    resolved = resolved_of(runtime, pod, container)
    return runtime.driver_of(record).container_spec(
        resolved,
        Surroundings(
            user=record.user,
            root=OverlayRoot(snapshot.lower, snapshot.upper, snapshot.work),
            pod=pod.record.config.security.namespaces,
            policy=policy_of(runtime, pod, container),
            cgroup_view=plans.CgroupView(*runtime.cgroups.view(record.cgroup)),
            pod_files=tuple((target, os.path.join(pod_folder, name)) for target, name in POD_FILES.items()),
            volumes_folder=snapshot.folder,
            pid_of=target_of(runtime, pod, namespaces.target_id) if namespaces.pid == "target" else "",
            hooks=requests.hooks_of(record, resolved.process, snapshot.folder),
            labels=record.selinux,
        ),
    )


def exec_launch(
    runtime: Runtime, pod: Pod, container: Container, command: Sequence[str], *, tty: bool = False
) -> plans.ExecLaunch:
    record = container.record
    security = record.config.security
    process = process_of(pod, container)
    env = requests.with_terminal(process.env) if tty else process.env
    return plans.ExecLaunch(
        container_id=record.id,
        process=codec.replace(process, args=tuple(command), env=env),
        user=record.user,
        policy=policy_of(runtime, pod, container),
        own_pid_namespace=security.namespaces.pid in ("container", "target"),
        own_cgroup_namespace=runtime.cgroups.version == "v2" and not security.privileged,
        user_namespace=pod.record.config.security.namespaces.user == "pod",
        oom_score_adj=record.resources.oom_score_adj,
        tty=tty,
        labels=record.selinux,
    )


def process_of(pod: Pod, container: Container) -> Process:
    if container.resolved is not None:
        return container.resolved.process
    # Only a part: a device of the container may have been removed from the node.
    record = container.record
    home, hostname = record.user.home, pod.record.hostname
    return requests.merged(requests.effective(record), record.image, hostname=hostname, home=home)


def allowed_devices(record: ContainerRecord, devices: Sequence[HostDevice]) -> tuple[cgroups.DeviceRule, ...]:
    """The rules of its device cgroup: those of every container, and its own devices."""
    rules = requests.device_rules(record.config, devices)
    own = tuple(cgroups.DeviceRule(*rule) for rule in rules)
    return own if record.config.security.privileged else (*cgroups.DEFAULT_RULES, *own)
