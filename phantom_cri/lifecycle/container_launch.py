"""Everything a plan is made of, fetched from the rooms that know: cgroups, policy, images, the pod."""

from __future__ import annotations

import os
from collections.abc import Sequence

from phantom_cri import cgroups, plans, requests
from phantom_cri.errors import InvalidArgument
from phantom_cri.lifecycle.confinement import policy_of
from phantom_cri.lifecycle.injection import effective, hook_state, make_bundle
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.node import Node
from phantom_cri.model import ContainerRecord

POD_FILES = {"/etc/resolv.conf": "resolv.conf", "/etc/hosts": "hosts", "/etc/hostname": "hostname"}
"""Where a container finds its pod's files, unless a mount of its own is there."""


def container_launch(
    node: Node, pod: Pod, container: Container, devices: Sequence[requests.HostDevice]
) -> plans.ContainerLaunch:
    record = container.record
    pod_folder = node.records.pod_folder(pod.id)
    snapshot = node.images.snapshot_of(record.id, record.layers)
    config, namespaces = effective(record), record.config.security.namespaces
    process = process_of(pod, record)
    hooks = record.injection.hooks if record.injection else ()
    bundle = make_bundle(snapshot.folder, record, process) if hooks else ""
    return plans.ContainerLaunch(
        config=config,
        process=process,
        user=record.user,
        layers=snapshot.lower,
        upper=snapshot.upper,
        work=snapshot.work,
        policy=policy_of(node, pod, container),
        devices=tuple(devices),
        pod_files=tuple((target, os.path.join(pod_folder, name)) for target, name in POD_FILES.items()),
        volumes=tuple(
            (path, os.path.join(snapshot.folder, requests.volume_folder(path)))
            for path in requests.anonymous_volumes(config, record.image)
        ),
        image_mounts=record.image_mounts,
        hooks=hooks,
        hook_state=hook_state(record, bundle) if hooks else b"",
        bundle=bundle,
        cgroup_view=plans.CgroupView(*node.cgroups.view(record.cgroup)),
        sandbox=pod.record.config.security.namespaces,
        hold=True,
        pid_namespace_of=target_of(node, pod, namespaces.target_id) if namespaces.pid == "target" else "",
        labels=record.selinux,
    )


def exec_launch(
    node: Node, pod: Pod, container: Container, command: Sequence[str], *, tty: bool = False
) -> plans.ExecLaunch:
    record = container.record
    security = record.config.security
    return plans.ExecLaunch(
        container_id=record.id,
        command=tuple(command),
        process=process_of(pod, record),
        user=record.user,
        policy=policy_of(node, pod, container),
        own_pid_namespace=security.namespaces.pid in ("container", "target"),
        own_cgroup_namespace=node.cgroups.version == "v2" and not security.privileged,
        user_namespace=pod.record.config.security.namespaces.user == "pod",
        oom_score_adj=record.resources.oom_score_adj,
        tty=tty,
        labels=record.selinux,
    )


def process_of(pod: Pod, record: ContainerRecord) -> requests.Process:
    return requests.merged(
        effective(record), record.image, hostname=pod.record.hostname, home=record.user.home
    )


def target_of(node: Node, pod: Pod, target_id: str) -> str:
    """The container whose pid namespace is joined; it has to run in the same pod."""
    target = node.records.container(target_id)
    if target.id not in pod.containers or target.record.state != "running":
        raise InvalidArgument(
            f"namespace_options.target_id: {target_id!r} is not a running container of this pod"
        )
    # A target that itself shares the pod's pid namespace has none of its own to be named by.
    own = target.record.config.security.namespaces
    return "" if own.pid == "pod" else own.target_id if own.pid == "target" else target.id


def allowed_devices(
    record: ContainerRecord, devices: Sequence[requests.HostDevice]
) -> tuple[cgroups.DeviceRule, ...]:
    """What its device cgroup allows: what every container may use, and what it was given."""
    rules = requests.device_rules(record.config, devices)
    own = tuple(cgroups.DeviceRule(*rule) for rule in rules)
    return own if record.config.security.privileged else (*cgroups.DEFAULT_RULES, *own)
