"""RunPodSandbox: claim a warm fragment, or start one, and give it the pod's identity."""

from __future__ import annotations

import os
import time

from phantom_cri import codec, plans, requests
from phantom_cri.cgroups import Cgroups
from phantom_cri.errors import FailedPrecondition, InvalidArgument, NotFound
from phantom_cri.fragments import FragmentLost
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.lifecycle import endings, node_fragments
from phantom_cri.lifecycle.live import Pod
from phantom_cri.lifecycle.runtime import Handler, Runtime, Stages, log
from phantom_cri.model import SandboxConfig, SandboxRecord, SelinuxLabels
from phantom_cri.network import identity
from phantom_cri.policy import selinux_files
from phantom_cri.pools import Profile, choose, misfit_reason
from phantom_cri.undo import Undo


async def run_pod_sandbox(runtime: Runtime, config: SandboxConfig, handler: str) -> str:
    """Create a pod and return its id; it is then ready. On failure everything is cleaned up."""
    stages = runtime.stages("run")
    check(runtime, config, handler)
    parent = cgroup_parent(runtime.cgroups, config.cgroup_parent or runtime.config.cgroup.parent)
    holder = runtime.records.holder(config.metadata)
    if holder is not None and holder.record.config == config and runtime.records.sent_again(holder.id):
        return holder.id
    while True:
        with stages.stage("claim"):
            fragment, cold_reason = await obtain(runtime, config, runtime.handlers[handler])
        pod = Pod(record=record_of(config, handler, parent, fragment, cold_reason), fragment=fragment)
        try:
            await make_pod(runtime, pod, fragment, stages)
            break
        except FragmentLost as error:
            if cold_reason:
                raise
            # It died in the pool unnoticed. Try the next one; without any, cold-start.
            log.warning("failed to claim a warm fragment, retrying with another: %s", error)
    runtime.events.emit("created", pod, pod.id)
    runtime.events.emit("started", pod, pod.id)
    endings.watch_pod(runtime, pod)
    finish(runtime, pod, stages)
    return pod.id


async def make_pod(runtime: Runtime, pod: Pod, fragment: FragmentHandle, stages: Stages) -> None:
    async with Undo("RunPodSandbox") as undo:
        undo.push("fragment", lambda: node_fragments.end(runtime, fragment))
        undo.push("pool's count", lambda: endings.leave_pool(runtime, pod))
        metadata = pod.record.config.metadata
        runtime.records.reserve(metadata, fragment.id)
        undo.push("name", lambda: runtime.records.release(metadata, fragment.id))
        if runtime.selinux.is_enabled:
            undo.push("labels", lambda: runtime.selinux.release(pod.id, pod.record.selinux))
            labels = runtime.selinux.of_pod(pod.id, pod.record.config.security)
            pod.record = codec.replace(pod.record, selinux=labels)
        if pod.record.config.security.namespaces.network != "node":
            with stages.stage("network"):
                await join_network(runtime, pod, fragment)
        with stages.stage("record"):
            runtime.records.intend_pod(pod.record)
        await give_identity(pod, fragment, stages)
        with stages.stage("record"):
            runtime.records.commit_pod(pod)
        undo.keep()


def check(runtime: Runtime, config: SandboxConfig, handler: str) -> None:
    """Check the request before anything is acquired; errors name the field and the value."""
    if handler not in runtime.handlers:
        raise NotFound(
            f"runtime_handler: no handler {handler!r}; known are {', '.join(map(repr, runtime.handlers))}"
            " (configuration: handlers)"
        )
    requests.check_pod(config)
    runtime.selinux.check_pod(config.security)
    if config.security.namespaces.user == "pod" and runtime.userns_unavailable:
        raise FailedPrecondition(
            f"namespace_options.userns_options: no user namespaces on this node: {runtime.userns_unavailable}"
        )


def cgroup_parent(cgroups: Cgroups, wanted: str) -> str:
    """The path of the pod's cgroup, for both cgroup drivers."""
    try:
        return cgroups.parent(wanted)
    except InvalidArgument as error:
        raise InvalidArgument(f"config.linux.cgroup_parent: {error}") from None


async def obtain(runtime: Runtime, config: SandboxConfig, handler: Handler) -> tuple[FragmentHandle, str]:
    """A fragment for this pod, and the reason for a cold start ("" if it was warm)."""
    namespaces = config.security.namespaces
    profile = choose(handler.profiles, namespaces)
    if profile is None:
        fragment = await node_fragments.spawn(runtime, cold_profile(config), requests.pod_ids(namespaces))
        return fragment, misfit_reason(namespaces)
    pool = runtime.pools[profile.name]
    claimed = pool.claim()
    runtime.metrics.pool_claim(pool.name, "miss" if claimed is None else "hit")
    if claimed is not None:
        return claimed, ""
    reason = "pool_disabled" if pool.size == 0 else "pool_empty"
    return await node_fragments.spawn(runtime, codec.replace(profile, name="")), reason


def cold_profile(config: SandboxConfig) -> Profile:
    namespaces = config.security.namespaces
    return Profile(
        name="",
        host_network=namespaces.network == "node",
        host_pid=namespaces.pid == "node",
        host_ipc=namespaces.ipc == "node",
    )


def record_of(
    config: SandboxConfig, handler: str, parent: str, fragment: FragmentHandle, cold_reason: str
) -> SandboxRecord:
    """Must not fail: the fragment has no undo yet."""
    return SandboxRecord(
        id=fragment.id,
        config=config,
        created_at=time.time_ns(),
        runtime_handler=handler,
        fragment=fragment.process,
        hostname=hostname_of(config, fragment.id),
        ips=fragment.ips,
        cgroup_parent=parent,
        pool=fragment.pool,
        start="cold" if cold_reason else "warm",
        cold_reason=cold_reason,
        resources=config.resources,
        overhead=config.overhead,
    )


async def join_network(runtime: Runtime, pod: Pod, fragment: FragmentHandle) -> None:
    """Set up host ports and other pod-specific networking; it is released at the fragment's end."""
    fragment.ips = await runtime.network.join(fragment.id, pod.record.config)
    if fragment.ips != pod.record.ips:
        pod.record = codec.replace(pod.record, ips=fragment.ips)


async def give_identity(pod: Pod, fragment: FragmentHandle, stages: Stages) -> None:
    """Set the pod's host name, files and sysctls."""
    config = pod.record.config
    host_network = config.security.namespaces.network == "node"
    hostname = pod.record.hostname
    ids = requests.pod_ids(config.security.namespaces)
    labels = pod.record.selinux
    with stages.stage("identity"):
        for name, content in identity.identity_files(
            hostname, fragment.ips, config.dns, host_network
        ).items():
            _write(os.path.join(fragment.folder, name), content, ids.root if ids else None, labels)
    with stages.stage("adopt"):
        sysctls = requests.checked_sysctls(config.sysctls, config.security.namespaces)
        plan = plans.claim_plan(None if host_network else hostname, sysctls, labels)
        await fragment.client.adopt(plan, claim=True)


def hostname_of(config: SandboxConfig, sandbox_id: str) -> str:
    """The requested name, the host's on the host's network, else the short id as in Docker."""
    if config.security.namespaces.network == "node":
        return os.uname().nodename
    return config.hostname or sandbox_id[:12]


def _write(
    path: str, content: bytes, owner: tuple[int, int] | None, labels: SelinuxLabels | None = None
) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        codec.write_all(fd, content)
        if owner:
            os.fchown(fd, *owner)
        if labels:
            selinux_files.label(fd, labels.mount)
    finally:
        os.close(fd)


def finish(runtime: Runtime, pod: Pod, stages: Stages) -> None:
    record = pod.record
    runtime.observe(pod, stages)
    if record.start == "cold":
        runtime.metrics.cold_start(record.cold_reason)
    requests.warn_unsupported(
        "pod sandbox", pod.id, record.config.annotations, shapes_traffic=runtime.shapes_traffic
    )
    log.info(
        "pod sandbox %s is ready: %s/%s, %s",
        pod.id,
        record.config.metadata.namespace,
        record.config.metadata.name,
        record.start if record.start == "warm" else f"cold ({record.cold_reason})",
        extra={"sandbox_id": pod.id},
    )
