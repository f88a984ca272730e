"""The policy of a container: decided when it is created, and used for its start and every exec."""

from __future__ import annotations

from collections import Counter

from phantom_cri import codec
from phantom_cri.errors import InvalidArgument
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.model import CapabilitySets, CompiledPolicy, ContainerRecord, PolicyReport
from phantom_cri.policy import unknown_names

SYS_PTRACE = 1 << 19  # linux/capability.h

MOST_KEPT = 128
"""Compiled policies on disk; if there are more, those of removed containers are deleted."""


def decide(runtime: Runtime, pod: Pod, record: ContainerRecord) -> CompiledPolicy:
    """The compiled policy of a new container, without CAP_SYS_PTRACE if that could control the fragment.

    The fragment has all capabilities and is not dumpable, so only a process with CAP_SYS_PTRACE can trace it
    (ptrace(2), "Ptrace access mode checking"). With "ALL" it is dropped; requested by name it is refused.
    Raises InvalidArgument, FailedPrecondition and what `Policy.compile` raises.
    """
    security = record.config.security
    compiled = runtime.handler_of(pod).policy.compile(security)
    if sees_fragment(runtime, pod, record):
        if "SYS_PTRACE" in {name.upper().removeprefix("CAP_") for name in security.capabilities.add}:
            raise InvalidArgument(
                "capabilities.add: 'SYS_PTRACE' in the pod's shared pid namespace would give the container "
                "the pod's fragment, and with it the node: give it a pid namespace of its own"
            )
        compiled = codec.replace(compiled, capabilities=_without(SYS_PTRACE, compiled.capabilities))
    unknown = unknown_names(security.capabilities)
    if unknown:
        log.warning("container %s: capabilities unknown to this kernel: %s", record.id, ", ".join(unknown))
    return compiled


def policy_of(runtime: Runtime, pod: Pod, container: Container) -> CompiledPolicy:
    """The policy stored when the container was created. Raises DataLoss."""
    if container.policy is None:
        recorded = container.record.policy
        if recorded is None:  # created by a daemon that did not record it
            container.policy = decide(runtime, pod, container.record)
        else:
            container.policy = runtime.kept_policies.read(recorded)
    return container.policy


def keep(runtime: Runtime, policy: CompiledPolicy) -> None:
    """Store it for the next daemon. The record that names it must be written next, without an await."""
    if len(runtime.kept_policies) >= MOST_KEPT:
        drop_unused(runtime)
    runtime.kept_policies.keep(policy)


def drop_unused(runtime: Runtime) -> None:
    """Delete stored policies of removed containers."""
    records = (container.record for container in runtime.records.containers.values())
    try:
        runtime.kept_policies.drop_unused({record.policy.hash for record in records if record.policy})
    except OSError as error:
        log.warning("failed to delete the policies of removed containers: %s", error)


def reports(runtime: Runtime) -> list[PolicyReport]:
    """The loaded policies, and how many containers were created under each name."""
    by_name = containers_by_policy(runtime)
    return [
        PolicyReport(
            name=policy.name,
            digest=policy.digest,
            is_default=policy is runtime.policies.default,
            can_unmask=policy.unmask == "allowed",
            masked_paths=policy.masked_paths,
            readonly_paths=policy.readonly_paths,
            capabilities=tuple(sorted(policy.default_capabilities)),
            no_new_privs=policy.no_new_privs,
            containers=by_name[policy.name],
            handlers=tuple(name for name, handler in runtime.handlers.items() if handler.policy is policy),
        )
        for policy in runtime.policies
    ]


def containers_by_policy(runtime: Runtime) -> Counter[str]:
    """By name; includes policies that are no longer loaded."""
    refs = (container.record.policy for container in runtime.records.containers.values())
    return Counter(ref.name for ref in refs if ref is not None)


def sees_fragment(runtime: Runtime, pod: Pod, record: ContainerRecord) -> bool:
    """Whether the container is in the pod's own pid namespace, in which the fragment is process 1."""
    own = record.config.security.namespaces
    of_pod = pod.record.config.security.namespaces
    # A pod's user namespace has no access to the fragment, which is outside of it.
    if of_pod.pid == "node" or of_pod.user == "pod" or record.config.security.privileged:
        return False
    return own.pid == "pod" or (own.pid == "target" and not target_of(runtime, pod, own.target_id))


def target_of(runtime: Runtime, pod: Pod, target_id: str) -> str:
    """The id of the container whose pid namespace is joined for `target_id`; empty: the pod's.

    Raises InvalidArgument: the target has to run in the same pod.
    """
    target = runtime.records.container(target_id)
    if target.id not in pod.containers or target.record.state != "running":
        raise InvalidArgument(
            f"namespace_options.target_id: {target_id!r} is not a running container of this pod"
        )
    own = target.record.config.security.namespaces
    if own.pid == "target":
        return target_of(runtime, pod, own.target_id)
    return "" if own.pid == "pod" else target.id


def _without(capability: int, sets: CapabilitySets) -> CapabilitySets:
    return CapabilitySets(
        bounding=sets.bounding & ~capability,
        effective=sets.effective & ~capability,
        permitted=sets.permitted & ~capability,
        inheritable=sets.inheritable & ~capability,
        ambient=sets.ambient & ~capability,
    )
