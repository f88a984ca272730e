"""Errors reported by a fragment: LaunchError and its kinds."""

from __future__ import annotations

import errno
import os
from typing import Literal

from phantom_cri.errors import (
    SHORTAGES,
    AlreadyExists,
    InvalidArgument,
    NotFound,
    PhantomError,
    Unavailable,
    errno_name,
)
from phantom_cri.plans.op import Op
from phantom_cri.plans.ops import Attach, Exec, Sysctl
from phantom_cri.plans.plan import Plan

Stage = Literal["request", "decode", "clone", "op", "unknown"]

_STAGES: dict[int, Stage] = {1: "request", 2: "decode", 3: "clone", 4: "op"}


class LaunchError(PhantomError):
    """A fragment's request failed. `number`: errno; `op_index`: -1 unless `stage` is "op"."""

    code = "INTERNAL"
    exit_code = 128  # of a container whose start failed, as in containerd
    reason = "StartError"

    def __init__(self, text: str, *, stage: Stage, number: int, op_index: int = -1) -> None:
        super().__init__(text)
        self.stage = stage
        self.number = number
        self.op_index = op_index
        if number in SHORTAGES:
            self.code = "RESOURCE_EXHAUSTED"


class ExecError(LaunchError):
    """The command itself could not be executed: a mistake of the user, with runc's message."""

    code = "UNKNOWN"  # as containerd; the kubelet shows this code's message unchanged


class FragmentLost(Unavailable):
    """The fragment has died, or closed the connection during a request."""


_EXEC_WORDS = {
    errno.EACCES: "permission denied",
    errno.ENOENT: "no such file or directory",
    errno.ENOEXEC: "exec format error",
    errno.E2BIG: "argument list too long",
    errno.ENOTDIR: "not a directory",
    errno.EISDIR: "is a directory",
    errno.ELOOP: "too many levels of symbolic links",
    errno.ENAMETOOLONG: "file name too long",
    errno.ETXTBSY: "text file busy",
}


_SYSCTL_WORDS = {
    errno.ENOENT: "this kernel has none of that name to set to",
    errno.EINVAL: "the kernel refuses the value",
    errno.ERANGE: "the kernel refuses the value",
    errno.EACCES: "it cannot be set here, to",
    errno.EPERM: "it cannot be set here, to",
    errno.ENOTDIR: "this kernel has none of that name to set to",
    errno.EISDIR: "this kernel has none of that name to set to",
}


def describe_errno(number: int) -> str:
    return f"{errno_name(number)} ({os.strerror(abs(number))})"


def _exec_error(op: Exec, number: int, index: int) -> ExecError:
    if number == errno.ENOENT and "/" not in op.path:
        why = "executable file not found in $PATH"
    else:
        why = _EXEC_WORDS.get(number) or describe_errno(number)
    return ExecError(f'exec: "{op.path}": {why}', stage="op", number=number, op_index=index)


def _op_error(op: Op, said: str, number: int, index: int, text: str) -> PhantomError:
    if isinstance(op, Exec):
        return _exec_error(op, number, index)
    if isinstance(op, Sysctl) and number in _SYSCTL_WORDS:
        return InvalidArgument(f"sysctls: {op.path}: {_SYSCTL_WORDS[number]} {op.value[:64]!r}")
    if isinstance(op, Attach) and number == errno.EINVAL:
        # ENOTDIR has several causes; this is the most frequent one.
        text = "a folder cannot be mounted on a file, nor a file on a folder"
    detail = f": {text}" if text else ""
    said = f"op {index}, {said}: {describe_errno(number)}{detail}"
    return LaunchError(said, stage="op", number=number, op_index=index)


def refusal(
    request: str, *, number: int, stage: int, index: int, text: str, plan: Plan | None
) -> PhantomError:
    """The error for one PH_ERROR. `request`: what was requested, as "start 1f…"; `plan`: its plan."""
    where = _STAGES.get(stage, "unknown")
    if where == "op" and plan is not None and 0 <= index < len(ops := list(plan.ops())):
        return _op_error(ops[index], plan.describe()[index], number, index, text)
    detail = f": {text}" if text else ""
    if where == "request" and number in (errno.ENOENT, errno.ESRCH):
        return NotFound(f"{request}: the fragment has no such process{detail}")
    if where == "request" and number == errno.EEXIST:
        return AlreadyExists(f"{request}: the fragment already has it{detail}")
    said = f"{request}: {where}: {describe_errno(number)}{detail}"
    return LaunchError(said, stage=where, number=number)
