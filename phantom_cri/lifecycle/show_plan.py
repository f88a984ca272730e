"""The plan with which a container is started, op by op, and the confinement of its process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from phantom_cri import plans, requests
from phantom_cri.lifecycle.confinement import policy_of
from phantom_cri.lifecycle.container_spec import container_spec, process_of
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.prepare import lendable, limits
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.model import CompiledPolicy, ContainerRecord, PlannedOp, PlanReport
from phantom_cri.policy import names_in, reference
from phantom_cri.telemetry.logs import printable

_PID_NAMESPACES = {"pod": "the pod's", "container": "its own", "node": "the host's"}


async def show_plan(runtime: Runtime, container_id: str) -> PlanReport:
    """The plan that was sent last, also if it failed; else one made again from the container's record.

    Raises NotFound, InvalidArgument (an ambiguous prefix), and the errors of making a plan, as DataLoss.
    """
    container = runtime.records.container(container_id)
    pod = runtime.records.pod_of(container)
    if container.plan is None and container.preparation is not None:
        await asyncio.wait([container.preparation])
    plan = container.plan or _made_again(runtime, pod, container)
    ops = zip(plan.ops(), plan.describe(), strict=True)
    return PlanReport(
        container_id=container.id,
        sandbox_id=pod.id,
        is_sent=container.plan is not None,
        ops=tuple(PlannedOp(op.op_name, printable(text)) for op, text in ops),
        facts=tuple((name, printable(text)) for name, text in _facts(runtime, pod, container, plan)),
    )


def _made_again(runtime: Runtime, pod: Pod, container: Container) -> plans.Plan:
    lent = lendable(
        runtime, runtime.fragments_cgroup
    )  # named as the container's own fds, which may be closed
    log = ["log"] if container.record.log_path else []
    return plans.container_plan(container_spec(runtime, pod, container), [*lent, *log], hold=True)


def _facts(runtime: Runtime, pod: Pod, container: Container, plan: plans.Plan) -> Iterator[tuple[str, str]]:
    record, policy = container.record, policy_of(runtime, pod, container)
    yield "user", f"{record.user.uid}:{record.user.gid}" + _listed(" with groups ", record.user.groups)
    yield from _namespaces(pod, record)
    yield "streams", _streams(record)
    variables = process_of(pod, container).env
    yield "environment", ", ".join(variable.partition("=")[0] for variable in variables) or "none"
    yield from _confinement(policy, record)
    yield "cgroup", record.cgroup
    yield "limits", ", ".join(runtime.cgroups.limits(limits(runtime, record))) or "none"
    yield "descriptors", ", ".join(f"{slot} {name}" for slot, name in enumerate(plan.donated))


def _namespaces(pod: Pod, record: ContainerRecord) -> Iterator[tuple[str, str]]:
    asked, of_pod = record.config.security.namespaces, pod.record.config.security.namespaces
    yield "pid namespace", _PID_NAMESPACES.get(asked.pid, f"that of container {asked.target_id}")
    if ids := requests.pod_ids(of_pod):
        users, groups = f"users {ids.uid}+{ids.uid_count}", f"groups {ids.gid}+{ids.gid_count}"
        yield "user namespace", f"the pod's, of {users}, {groups}"


def _streams(record: ContainerRecord) -> str:
    kind = "a terminal" if record.config.tty else "pipes" if record.config.stdin else "pipes, no stdin"
    return f"{kind}, log {record.log_path or 'nowhere'}"


def _confinement(policy: CompiledPolicy, record: ContainerRecord) -> Iterator[tuple[str, str]]:
    yield "policy", f"{policy.name} {reference(policy).hash}"
    yield "capabilities", ", ".join(sorted(names_in(policy.capabilities.effective))) or "none"
    yield "new privileges", "never" if policy.no_new_privs else "allowed"
    size = len(policy.seccomp) // 8  # struct sock_filter (seccomp(2))
    yield "seccomp", f"a filter of {size} instructions" if size else "unconfined"
    yield "AppArmor", policy.apparmor or "unconfined"
    if record.selinux is not None:
        yield "SELinux", record.selinux.process or "unlabelled"


def _listed(before: str, numbers: tuple[int, ...]) -> str:
    return before + ", ".join(map(str, numbers)) if numbers else ""
