"""A process of an OCI spec: what it runs, as whom, and what it may."""

from __future__ import annotations

import resource

from phantom_cri import plans
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import CapabilitySets, CompiledPolicy, SelinuxLabels, User
from phantom_cri.policy import given_filter, mask_of_names
from shim import document

_LARGEST = (1 << 64) - 1


def process_of(wanted: document.Process, field: str) -> plans.Process:
    """Raises InvalidArgument naming the field below `field`, and its value."""
    if not wanted.args or not wanted.args[0]:
        raise InvalidArgument(f"{field}.args: {list(wanted.args)} names no program")
    if not wanted.cwd.startswith("/"):
        raise InvalidArgument(f"{field}.cwd: {wanted.cwd!r} is no absolute path")
    umask = 0o022 if wanted.user.umask is None else wanted.user.umask
    if not 0 <= umask <= 0o777:
        raise InvalidArgument(f"{field}.user.umask: {umask}: want 0 to 511")
    rlimits = tuple(_limit(limit, f"{field}.rlimits[{at}]") for at, limit in enumerate(wanted.rlimits))
    return plans.Process(wanted.args, _environment(wanted, field), wanted.cwd, umask, rlimits)


def _environment(wanted: document.Process, field: str) -> tuple[str, ...]:
    """Each name once, the last value counts. HOME is root's folder or / where the spec has none."""
    found: dict[str, str] = {}
    for index, text in enumerate(wanted.env):
        name, separator, value = text.partition("=")
        if not name or not separator or "\0" in text:
            raise InvalidArgument(f"{field}.env[{index}]: {text!r}: want NAME=value without a NUL byte")
        found[name] = value
    found.setdefault("HOME", "/" if wanted.user.uid else "/root")
    return tuple([f"{name}={value}" for name, value in found.items()])


def _limit(wanted: document.Rlimit, field: str) -> plans.Limit:
    number = getattr(resource, wanted.type, None) if wanted.type.startswith("RLIMIT_") else None
    if number is None:
        raise InvalidArgument(f"{field}.type: {wanted.type!r}: no such limit")
    if not 0 <= wanted.soft <= wanted.hard <= _LARGEST:
        raise InvalidArgument(f"{field}: soft {wanted.soft} up to hard {wanted.hard}: want 0 <= soft <= hard")
    return plans.Limit(number, wanted.soft, wanted.hard)


def user_of(wanted: document.Process, field: str) -> User:
    ids = (wanted.user.uid, wanted.user.gid, *wanted.user.additional_gids)
    for number in ids:
        if not 0 <= number < 1 << 32:
            raise InvalidArgument(f"{field}.user: {number}: want an id of 32 bits")
    return User(uid=ids[0], gid=ids[1], groups=ids[2:])


def policy_of(wanted: document.Process, linux: document.Linux, field: str) -> CompiledPolicy:
    """Raises InvalidArgument, FailedPrecondition for a capability that this node cannot give."""
    seccomp = given_filter(linux.seccomp, "linux.seccomp") if linux.seccomp else None
    sets = {
        name: mask_of_names(getattr(wanted.capabilities, name), f"{field}.capabilities.{name}")
        for name in document.Capabilities.__struct_fields__
    }
    return CompiledPolicy(
        name="oci",
        capabilities=CapabilitySets(**sets),
        no_new_privs=wanted.no_new_privileges,
        seccomp=seccomp.bpf if seccomp else b"",
        seccomp_flags=seccomp.flags if seccomp else 0,
        masked_paths=linux.masked_paths,
        readonly_paths=linux.readonly_paths,
        apparmor="" if wanted.apparmor_profile == "unconfined" else wanted.apparmor_profile,
    )


def labels_of(wanted: document.Process, linux: document.Linux) -> SelinuxLabels | None:
    if not wanted.selinux_label and not linux.mount_label:
        return None
    return SelinuxLabels(process=wanted.selinux_label, mount=linux.mount_label)
