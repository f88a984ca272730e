"""SELinux: what a container's processes and files are labelled, on a host that has it (selinux(8)).

Types come from the host's policy (lxc_contexts(5)). What keeps pods apart is the level: each gets a pair of
categories of its own, on its processes as on its files, and all of its containers share them.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from phantom_cri.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, kernel_error
from phantom_cri.model import ContainerSecurity, SandboxSecurity, SelinuxLabels, SelinuxOptions

log = logging.getLogger(__name__)

_UNCONSTRAINED = ("spc_t", "unconfined_t")
"""Types of SELinux' reference policies for containers that nothing holds in."""

_FIELD = "selinux_options"
_CHECK = Path("/sys/fs/selinux/context")
_OWN = Path("/proc/thread-self/attr/current")
_NOT_ENABLED = "SELinux is not enabled on this host"

_LIBRARIES = Path("/usr/share/containers/selinux/contexts")
_POLICIES = Path("/etc/selinux")

_CATEGORIES = 1024
"""As many as all policies of distributions have, and as the peers use."""

_LONGEST = 4096

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_LEVEL = re.compile(r"[A-Za-z0-9_.,:-]+")


class Context(NamedTuple):
    """`level`: an MLS range, "" where the policy has none."""

    user: str
    role: str
    type: str
    level: str = ""

    def __str__(self) -> str:
        return ":".join(part for part in self if part)


class Contexts(NamedTuple):
    """What the host's policy has containers be: processes, files they may write, files they may read."""

    process: Context
    file: Context
    ro_file: Context


def parse_context(text: str) -> Context:
    """Raises ValueError."""
    parts = text.split(":", 3)
    if len(parts) < 3 or not all(parts):
        raise ValueError(f"{text!r} is not user:role:type or user:role:type:level")
    return Context(*parts)


def canonical(text: str, check: Path = _CHECK) -> str:
    """The context as the kernel writes it, "" for one that its policy does not know. Raises Internal."""
    try:
        fd = os.open(check, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
            return os.read(fd, _LONGEST).rstrip(b"\0").decode()
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return ""
        raise kernel_error(f"ask {check} for {text!r}", error.errno or errno.EIO) from error


def enabled(check: Path = _CHECK, own: Path = _OWN) -> bool:
    """Found by trying: this process has a context and the kernel takes it for one.

    Before a policy is loaded all processes are "kernel"; a selinuxfs that is mounted read-only says, as to
    libselinux, that SELinux is not for whoever sees it.
    """
    if not os.access(check, os.W_OK):
        return False
    context = own.read_text().rstrip("\0\n")
    return context != "kernel" and canonical(context, check) != ""


def read_contexts(libraries: Path = _LIBRARIES, policies: Path = _POLICIES) -> Contexts | None:
    """Those of container-selinux, else of the policy in use; None where neither has any.

    Raises ValueError, OSError.
    """
    settings = _settings(policies / "config")
    for path in (libraries, policies / settings.get("SELINUXTYPE", "targeted") / "contexts/lxc_contexts"):
        found = _settings(path)
        if {"process", "file"} <= found.keys():
            return Contexts(
                parse_context(found["process"]),
                parse_context(found["file"]),
                parse_context(found.get("ro_file", found["file"])),
            )
    return None


def _settings(path: Path) -> dict[str, str]:
    """`key = "value"` of each line that has one."""
    if not path.exists():
        return {}
    pairs = (line.split("#")[0].partition("=") for line in path.read_text().splitlines())
    return {key.strip(): value.strip().strip('"') for key, sign, value in pairs if sign}


class Selinux:
    """Who is labelled how. `contexts` None: nobody is, and `unavailable_reason` says why.

    On a host without SELinux requests for labels are ignored, as containerd and CRI-O do: Kubernetes' own
    conformance tests send `level: s0` to any host. Where SELinux is there and cannot label, they are refused.
    """

    def __init__(
        self,
        contexts: Contexts | None = None,
        unavailable_reason: str = _NOT_ENABLED,
        canonical: Callable[[str], str] = canonical,
    ) -> None:
        self.contexts, self.unavailable_reason, self._canonical = contexts, unavailable_reason, canonical
        self._holders: dict[str, set[str]] = {}  # of each level: pods
        self._told = False

    @classmethod
    def load(cls) -> Selinux:
        """What this host has. Raises Internal."""
        if not enabled():
            return cls()
        try:
            contexts = read_contexts()
        except (OSError, ValueError) as error:
            return cls(None, f"SELinux' contexts for containers cannot be read: {error}")
        if contexts is None:
            return cls(None, "SELinux' policy on this host has no contexts for containers (lxc_contexts)")
        for context in contexts:
            if not canonical(str(context)):
                return cls(None, f"SELinux' policy on this host has no {context}, its contexts name it")
        return cls(contexts)

    @property
    def is_enabled(self) -> bool:
        return self.contexts is not None or self.unavailable_reason is not _NOT_ENABLED

    # --- who gets which ----------------------------------------------------

    def check_pod(self, security: SandboxSecurity) -> None:
        """Refuse what `of_pod` would. Raises FailedPrecondition, InvalidArgument naming the field."""
        if self.contexts is None:
            self._refuse(security)
        elif security.selinux is not None:
            self._labels(security.selinux, self.contexts.process, self.contexts.file)

    def of_pod(self, sandbox_id: str, security: SandboxSecurity) -> SelinuxLabels | None:
        """A pod's labels, their level held for it until `release`; None where nobody gets any."""
        if self.contexts is None:
            return None
        asked = security.selinux or SelinuxOptions()
        process, file = self.contexts.process, self.contexts.file
        if not asked.level and process.level:
            process = process._replace(level=self._free_level(process.level))
            file = file._replace(level=process.level)
        labels = self._labels(asked, process, file)
        self.hold(sandbox_id, labels)
        return labels

    def of_container(self, pod: SelinuxLabels | None, security: ContainerSecurity) -> SelinuxLabels | None:
        """What it does not ask for is its pod's. A privileged one has no label for its processes: what they
        become is the policy's affair. Raises FailedPrecondition, InvalidArgument naming the field."""
        if self.contexts is None or pod is None:
            self._refuse(security)
            return None
        if security.selinux is None:
            return SelinuxLabels("", pod.mount) if security.privileged else pod
        labels = self._labels(security.selinux, parse_context(pod.process), parse_context(pod.mount))
        return SelinuxLabels("", labels.mount) if security.privileged else labels

    def hold(self, sandbox_id: str, labels: SelinuxLabels) -> None:
        """No other pod shall be given this level unless it asks for it."""
        self._holders.setdefault(parse_context(labels.process).level, set()).add(sandbox_id)

    @property
    def held_levels(self) -> frozenset[str]:
        return frozenset(self._holders)

    def release(self, sandbox_id: str, labels: SelinuxLabels | None) -> None:
        """Idempotent."""
        if labels is None:
            return
        level = parse_context(labels.process).level
        holders = self._holders.get(level, set())
        holders.discard(sandbox_id)
        if not holders:
            self._holders.pop(level, None)

    def _free_level(self, level: str) -> str:
        """Two categories that no pod holds; drawn, so that a pod's old files are hardly ever another's."""
        sensitivity = level.partition(":")[0].partition("-")[0]
        for _ in range(10_000):
            low, high = sorted((secrets.randbelow(_CATEGORIES), secrets.randbelow(_CATEGORIES)))
            drawn = f"{sensitivity}:c{low},c{high}"
            if low != high and drawn not in self._holders:
                return drawn
        raise ResourceExhausted(f"selinux: {len(self._holders)} levels are in use, and no free one was found")

    def _labels(self, asked: SelinuxOptions, process: Context, file: Context) -> SelinuxLabels:
        """Those two contexts with what is asked in place of their own. Files have no say in role and type."""
        for field, pattern in (("user", _NAME), ("role", _NAME), ("type", _NAME), ("level", _LEVEL)):
            value = getattr(asked, field)
            if not value:
                continue
            process = process._replace(**{field: value})
            # Any user, type and level that exist go together in the context of an object.
            alone = str(process._replace(role="object_r"))
            if not pattern.fullmatch(value) or (field != "role" and not self._canonical(alone)):
                raise InvalidArgument(f"{_FIELD}.{field}: {value!r} is not known to this host's policy")
        found = self._canonical(str(process))
        if not found:
            field = f"{_FIELD}.role" if asked.role else _FIELD
            raise InvalidArgument(f"{field}: this host's policy does not allow {str(process)!r}")
        file = file._replace(user=process.user, level=process.level)
        return SelinuxLabels(found, self._canonical(str(file)))

    def _refuse(self, security: ContainerSecurity | SandboxSecurity) -> None:
        """A label that would hold a process in and cannot be given is refused, not left out.

        Those that set one free mean nothing where nobody is labelled. Without SELinux all are ignored.
        """
        asked = security.selinux
        if asked is None or not any((asked.user, asked.role, asked.type, asked.level)):
            return
        if not self.is_enabled:
            self._ignore(asked)
        elif not security.privileged and asked.type not in _UNCONSTRAINED:
            why = self.unavailable_reason if self.contexts is None else "its pod was made without labels"
            raise FailedPrecondition(f"{_FIELD}: {asked}: {why}")

    def _ignore(self, asked: SelinuxOptions) -> None:
        """Logged once: a kubelet may ask with every pod."""
        if not self._told:
            self._told = True
            log.warning(
                "%s are ignored (%s): %s; this is logged once", _FIELD, asked, self.unavailable_reason
            )
