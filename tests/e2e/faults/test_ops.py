"""Every op of real plans fails once: the error names it, the fragment is as good as ever, nothing is left."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from phantom_cri import codec, fragments, plans
from phantom_cri.errors import InvalidArgument
from phantom_cri.fragments import LaunchError
from phantom_cri.fragments.client import FragmentClient
from phantom_cri.fragments.message import Type
from phantom_cri.lifecycle import node_fragments
from phantom_cri.plans import ops
from phantom_cri.plans.op import Op
from phantom_cri.plans.plan import Plan
from tests.e2e.faults.bed import Bed
from tests.e2e.faults.scenarios import Birth, ExecSync, Scenario, StartInUserNamespace, StartUnprepared
from tests.e2e.faults.test_acquires import one_fault, run

pytestmark = pytest.mark.root

FAILS = ops.Rlimit(99, 0, 0)
"""setrlimit(2) of a resource that no kernel knows: EINVAL wherever in a plan it stands."""

BROKEN: dict[type[Op], tuple[Callable[[Any], Op], int]] = {
    ops.JoinNs: (lambda op: ops.JoinNs(op.slot, plans.CLONE_NEWUTS), errno.EINVAL),
    ops.JoinProcess: (lambda op: ops.JoinProcess("nobody", op.nstypes), errno.ESRCH),
    ops.Unshare: (lambda op: ops.Unshare(1 << 40), errno.EINVAL),
    ops.OpenTree: (lambda op: ops.OpenTree(op.slot, "/not/there", 0), errno.ENOENT),
    ops.Overlay: (
        lambda op: ops.Overlay(op.slot, ("/not/there",), op.upper, op.work, op.flags),
        errno.ENOENT,
    ),
    ops.OverlayMapped: (
        lambda op: ops.OverlayMapped(op.slot, ("/not/there", "/"), op.upper, op.work, op.flags),
        errno.ENOENT,
    ),
    ops.NewFs: (lambda op: ops.NewFs(op.slot, "nofs", op.options, op.attributes), errno.ENODEV),
    ops.Attach: (lambda op: ops.Attach(op.slot, "/etc/passwd/x", 0, 0, op.flags), errno.ENOTDIR),
    ops.Mkdir: (lambda op: ops.Mkdir("/etc/passwd/x", 0o755), errno.ENOTDIR),
    ops.Mknod: (lambda op: codec_path(op, "/etc/passwd/x"), errno.ENOTDIR),
    ops.Symlink: (lambda op: ops.Symlink(op.target, "/etc/passwd/x"), errno.ENOTDIR),
    ops.Remount: (lambda op: ops.Remount("/not/there", op.attributes, op.flags), errno.ENOENT),
    ops.Hostname: (lambda op: ops.Hostname("x" * 65), errno.EINVAL),
    ops.Sysctl: (lambda op: ops.Sysctl("net/not_there", op.value), errno.ENOENT),
    ops.Netlink: (lambda op: ops.Netlink(bytes(16)), errno.EINVAL),
    ops.Rlimit: (lambda op: FAILS, errno.EINVAL),
    ops.Ids: (lambda op: ops.Ids(1 << 32, op.gid, op.groups), errno.EINVAL),
    ops.Capabilities: (lambda op: ops.Capabilities(1 << 62, 0, 0, 0), errno.EPERM),
    ops.Seccomp: (lambda op: ops.Seccomp(b"\xff" * 16, op.mode), errno.EINVAL),
    ops.Chdir: (lambda op: ops.Chdir("/etc/passwd"), errno.ENOTDIR),
    ops.Exec: (lambda op: ops.Exec("/not/there", op.argv, op.envp), errno.ENOENT),
}
"""What makes an op fail by its own argument, and with what."""

CANNOT_BREAK = {
    ops.CgroupProcs, ops.JoinFragment, ops.Root, ops.Mask, ops.Readonly, ops.Pivot,
    ops.OomScore, ops.Umask, ops.NoNewPrivs, ops.Bounding, ops.MapIds, ops.FilesAsRoot, ops.JoinUser,
}  # fmt: skip
"""Ops without an argument that is wrong in itself: they take any, or the decoder sees that it is wrong."""


def codec_path(op: ops.Mknod, path: str) -> ops.Mknod:
    return ops.Mknod(path, op.mode, op.major, op.minor, op.uid, op.gid)


def with_ops(plan: Plan, changed: Sequence[Op]) -> Plan:
    return codec.replace(plan, parts=tuple(changed))


class Meddler:
    """Changes each plan of one kind on its way to a fragment, and keeps the last that it saw."""

    def __init__(self, kind: Type, monkeypatch: pytest.MonkeyPatch) -> None:
        self.change: Callable[[list[Op]], list[Op]] | None = None
        self.seen: list[Op] = []
        send = FragmentClient._send_plan

        def sending(
            fragment: FragmentClient, type: Type, name: str, plan: Plan, *rest: Any, **more: Any
        ) -> Any:
            if type == kind:
                self.seen = list(plan.ops())
                if self.change is not None:
                    plan = with_ops(plan, self.change(self.seen))
            return send(fragment, type, name, plan, *rest, **more)

        monkeypatch.setattr(FragmentClient, "_send_plan", sending)


PLANS = pytest.mark.parametrize(
    ("scenario", "kind"),
    [
        (StartUnprepared, Type.START),
        pytest.param(StartInUserNamespace, Type.START, marks=pytest.mark.long),
        (ExecSync, Type.START),
        (Birth, Type.ADOPT),
    ],
    ids=["container", "container in a user namespace", "exec", "spawn"],
)


@PLANS
def test_each_op_is_reached_and_undone(
    bed: Bed, scenario: type[Scenario], kind: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An op that must fail stands before op N, for each N: what the N ops before it did is undone."""

    def cases(seen: Sequence[Op]) -> list[tuple[int, Op, int, bool]]:
        return [(index, FAILS, errno.EINVAL, True) for index in range(len(seen))]

    check_ops(bed, scenario(bed), Meddler(kind, monkeypatch), cases)


@PLANS
def test_each_op_fails_by_its_own_argument(
    bed: Bed, scenario: type[Scenario], kind: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cases(seen: Sequence[Op]) -> list[tuple[int, Op, int, bool]]:
        unknown = {type(op) for op in seen} - BROKEN.keys() - CANNOT_BREAK
        assert not unknown, f"how can {unknown} be made to fail?"
        found = []
        for index, op in enumerate(seen):
            if type(op) in BROKEN:
                broken, number = BROKEN[type(op)]
                found.append((index, broken(op), number, False))
        return found

    check_ops(bed, scenario(bed), Meddler(kind, monkeypatch), cases)


def check_ops(
    bed: Bed,
    scenario: Scenario,
    meddler: Meddler,
    cases: Callable[[Sequence[Op]], list[tuple[int, Op, int, bool]]],
) -> None:
    """cases: from a real plan's ops to (index, op to put there, its errno, whether the one there stays)."""

    async def act(thing: Any) -> Any:
        """What comes before, the next attempt, and what ends it all are left alone."""
        meddler.seen, meddler.change = [], planned
        try:
            return await scenario.act(thing)
        finally:
            seen.append(meddler.seen)
            meddler.change = None

    seen: list[list[Op]] = []
    planned: Callable[[list[Op]], list[Op]] | None = None
    assert run(bed, one_fault(scenario, act, repr)) == []
    findings = []
    for index, bad, number, keep in cases(seen[0]):

        def change(found: list[Op], index: int = index, bad: Op = bad, keep: bool = keep) -> list[Op]:
            return [*found[:index], bad, *found[index + (not keep) :]]

        def judge(error: BaseException, index: int = index, bad: Op = bad, number: int = number) -> str:
            return misjudged(error, index, bad, number)

        planned = change
        wrong = run(bed, one_fault(scenario, act, judge))
        findings += [f"op {index}, {bad!r}: {what}" for what in wrong]
    assert not findings, f"{len(findings)} findings:\n" + "\n".join(findings)


def misjudged(error: BaseException, index: int, op: Op, number: int) -> str:
    if isinstance(op, ops.Sysctl):  # the request's own words, and its mistake
        told = isinstance(error, InvalidArgument) and f"sysctls: {op.path}: " in str(error)
        return "" if told else f"the caller gets {error!r}"
    if not isinstance(error, LaunchError):
        return f"the caller gets {error!r}"
    if (error.stage, error.op_index, error.number) != ("op", index, number):
        return f"wrong place or errno: {error.stage} {error.op_index}: {error}"
    name = errno.errorcode[number]
    if not isinstance(op, ops.Exec) and not re.match(
        rf"op {index}, .+: {name} \({os.strerror(number)}\)", str(error)
    ):
        return f"the text does not say it: {error}"
    return ""


def test_a_refused_claim_can_be_sent_again(bed: Bed) -> None:
    """A warm fragment whose claim failed at any op is still warm, and takes the right one."""

    async def whole() -> None:
        before = bed.traces()
        fragment = await node_fragments.spawn(bed.runtime, bed.runtime.profiles[0])
        spawned = bed.traces()
        claim = plans.claim_plan("claimed", {"net/core/somaxconn": "77", "kernel/msgmax": "4096"})
        good = list(claim.ops())
        for index in range(len(good) + 1):
            with pytest.raises(LaunchError) as refused:
                await fragment.client.adopt(
                    with_ops(claim, [*good[:index], FAILS, *good[index:]]), claim=True
                )
            assert misjudged(refused.value, index, FAILS, errno.EINVAL) == ""
            assert (await fragment.client.hello()).phase == fragments.Phase.WARM
        assert await bed.left_since(spawned) == ""
        await fragment.client.adopt(claim, claim=True)
        assert (await fragment.client.hello()).phase == fragments.Phase.CLAIMED
        await node_fragments.end(bed.runtime, fragment)
        await asyncio.sleep(0)
        assert await bed.changed_since(before) == ""

    bed.runner.run(whole())
