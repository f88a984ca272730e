"""Writes limits to cgroup files, in an order the kernel accepts; an update is all or nothing."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Sequence

from phantom_cri.cgroups.limits import KEEP_QUOTA, Setting
from phantom_cri.cgroups.tree import Tree
from phantom_cri.cgroups.unified import lines, restored
from phantom_cri.errors import FailedPrecondition, InvalidArgument, PhantomError, kernel_error

TreeOf = Callable[[str], Tree | None]

_REFUSED_VALUE = (errno.EINVAL, errno.ERANGE, errno.E2BIG, errno.EOPNOTSUPP)


def write_values(tree_of: TreeOf, name: str, settings: Sequence[Setting]) -> None:
    """Write all. Raises InvalidArgument (the kernel refuses the value), FailedPrecondition (no controller).

    Some values are legal only after another (v1: memory below memory+swap, a period that fits the quota), and
    which goes first depends on the old values. So a failed write is retried once after the others.
    """
    again = [setting for setting in settings if _attempt(tree_of, name, setting) is not None]
    for setting in again:
        error = _attempt(tree_of, name, setting)
        if error is not None:
            raise refusal(name, setting, error) from error


def replace_values(tree_of: TreeOf, name: str, settings: Sequence[Setting]) -> None:
    """`write_values`, but after a failure every file has its old value again."""
    before = [old for setting in settings if (old := _current(tree_of, name, setting)) is not None]
    settings = [_with_quota(setting, before) for setting in settings]
    try:
        write_values(tree_of, name, settings)
    except PhantomError:
        values = {setting.file: setting.value for setting in settings}
        before = [old._replace(value=restored(old.file, values[old.file], old.value)) for old in before]
        # The old values were valid together; if this fails too, the first error is still the one to report.
        with contextlib.suppress(PhantomError):
            write_values(tree_of, name, before[::-1])
        raise


def refusal(name: str, setting: Setting, error: OSError) -> PhantomError:
    """The error for a value that could not be written, naming field, value and file."""
    number = error.errno or 0
    what = f"linux.resources.{setting.field} {setting.value!r}: cgroup /{name}: {setting.file}"
    if number in _REFUSED_VALUE or (number == errno.ENOENT and setting.names_file):
        return InvalidArgument(f"{what}: refused by the kernel ({errno.errorcode[number]})")
    if number in (errno.EBUSY, errno.ENOENT, errno.ENOSPC):
        return FailedPrecondition(f"{what}: not possible now ({errno.errorcode[number]})")
    return kernel_error(f"{what}: write", number)


def missing_controller(setting: Setting) -> FailedPrecondition:
    what = f"linux.resources.{setting.field} {setting.value!r}"
    return FailedPrecondition(f"{what}: this node has no {setting.controller!r} controller")


def _attempt(tree_of: TreeOf, name: str, setting: Setting) -> OSError | None:
    tree = tree_of(setting.controller)
    if tree is None:
        if setting.optional:
            return None
        raise missing_controller(setting)
    try:
        for line in lines(setting.file, setting.value):
            tree.write(name, setting.file, line)
    except OSError as error:
        if error.errno == errno.ENOENT and setting.optional:
            return None
        return error
    return None


def _current(tree_of: TreeOf, name: str, setting: Setting) -> Setting | None:
    tree = tree_of(setting.controller)
    if tree is None:
        return None
    try:
        # An empty value (a v2 cpuset as its parent's) is restored by a newline: an empty write has no effect.
        value = tree.read(name, setting.file).strip() or ("" if setting.file.startswith("io.") else "\n")
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise kernel_error(f"cgroup /{name}: read {setting.file}", error.errno or 0) from error
    return setting._replace(value=value)


def _with_quota(setting: Setting, before: Sequence[Setting]) -> Setting:
    """Fill in the cgroup's current quota if the request sets only the period."""
    if KEEP_QUOTA not in setting.value:
        return setting
    quota = next((old.value.split()[0] for old in before if old.file == setting.file), "max")
    return setting._replace(value=setting.value.replace(KEEP_QUOTA, quota))
