"""SELinux labels of containers' processes and files, on a host with SELinux (selinux(8)).

Types come from the host's policy (lxc_contexts(5)). Pods are separated by their level: each has its own pair
of categories, for its processes and files, shared by all of its containers.
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
"""Types of SELinux' reference policies for unconfined containers."""

_FIELD = "selinux_options"
_CHECK = Path("/sys/fs/selinux/context")
_OWN = Path("/proc/thread-self/attr/current")
_NOT_ENABLED = "SELinux is not enabled on this host"

_LIBRARIES = Path("/usr/share/containers/selinux/contexts")
_POLICIES = Path("/etc/selinux")

_CATEGORIES = 1024
"""As in distributions' policies and in other runtimes."""

_LONGEST = 4096

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_LEVEL = re.compile(r"[A-Za-z0-9_.,:-]+")


class Context(NamedTuple):
    """`level`: an MLS range, "" if the policy has none."""

    user: str
    role: str
    type: str
    level: str = ""

    def __str__(self) -> str:
        return ":".join(part for part in self if part)


class Contexts(NamedTuple):
    """The host policy's contexts for containers: of processes, of writable files, of read-only files."""

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
    """The context in the kernel's format, "" for one unknown to its policy. Raises Internal."""
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
    """Tests whether this process has a context that the kernel accepts.

    Before a policy is loaded all processes have the context "kernel"; a read-only selinuxfs means, as in
    libselinux, that SELinux must not be used.
    """
    if not os.access(check, os.W_OK):
        return False
    context = own.read_text().rstrip("\0\n")
    return context != "kernel" and canonical(context, check) != ""


def read_contexts(libraries: Path = _LIBRARIES, policies: Path = _POLICIES) -> Contexts | None:
    """The contexts of container-selinux, else of the active policy; None if both have none.

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
    """The `key = "value"` lines."""
    if not path.exists():
        return {}
    pairs = (line.split("#")[0].partition("=") for line in path.read_text().splitlines())
    return {key.strip(): value.strip().strip('"') for key, sign, value in pairs if sign}


class Selinux:
    """Chooses labels. `contexts` None: no labels are set, for the reason in `unavailable_reason`.

    On a host without SELinux requests for labels are ignored, as in containerd and CRI-O: Kubernetes'
    conformance tests send `level: s0` to any host. With SELinux but without contexts, they are refused.
    """

    def __init__(
        self,
        contexts: Contexts | None = None,
        unavailable_reason: str = _NOT_ENABLED,
        canonical: Callable[[str], str] = canonical,
    ) -> None:
        self.contexts, self.unavailable_reason, self._canonical = contexts, unavailable_reason, canonical
        self._holders: dict[str, set[str]] = {}  # level → its pods
        self._told = False

    @classmethod
    def load(cls) -> Selinux:
        """SELinux on this host. Raises Internal."""
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
                return cls(None, f"SELinux' policy on this host has no {context}, which its contexts name")
        return cls(contexts)

    @property
    def is_enabled(self) -> bool:
        return self.contexts is not None or self.unavailable_reason is not _NOT_ENABLED

    # --- assignment ------------------------------------------------------

    def check_pod(self, security: SandboxSecurity) -> None:
        """Checks of `of_pod`. Raises FailedPrecondition, InvalidArgument naming the field."""
        if self.contexts is None:
            self._refuse(security)
        elif security.selinux is not None:
            self._labels(security.selinux, self.contexts.process, self.contexts.file)

    def of_pod(self, sandbox_id: str, security: SandboxSecurity) -> SelinuxLabels | None:
        """A pod's labels, with a level reserved until `release`; None if no labels are set."""
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
        """The requested labels, with defaults from its pod. Processes of a privileged one are not labelled:
        the host's policy decides. Raises FailedPrecondition, InvalidArgument naming the field."""
        if self.contexts is None or pod is None:
            self._refuse(security)
            return None
        if security.selinux is None:
            return SelinuxLabels("", pod.mount) if security.privileged else pod
        labels = self._labels(security.selinux, parse_context(pod.process), parse_context(pod.mount))
        return SelinuxLabels("", labels.mount) if security.privileged else labels

    def hold(self, sandbox_id: str, labels: SelinuxLabels) -> None:
        """Reserve this level: other pods only get it if they request it."""
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
        """Two unused categories; random, so that a new pod rarely has access to a removed pod's files."""
        sensitivity = level.partition(":")[0].partition("-")[0]
        for _ in range(10_000):
            low, high = sorted((secrets.randbelow(_CATEGORIES), secrets.randbelow(_CATEGORIES)))
            drawn = f"{sensitivity}:c{low},c{high}"
            if low != high and drawn not in self._holders:
                return drawn
        raise ResourceExhausted(f"selinux: {len(self._holders)} levels are in use, and no free one was found")

    def _labels(self, asked: SelinuxOptions, process: Context, file: Context) -> SelinuxLabels:
        """The two contexts with the requested parts. A file's role and type cannot be requested."""
        for field, pattern in (("user", _NAME), ("role", _NAME), ("type", _NAME), ("level", _LEVEL)):
            value = getattr(asked, field)
            if not value:
                continue
            process = process._replace(**{field: value})
            # The context of an object accepts any combination of existing user, type and level.
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
        """Refuse, instead of ignoring, a requested label that would confine a process but cannot be set.

        Labels of unconfined types are ignored if no labels are set. Without SELinux all are ignored.
        """
        asked = security.selinux
        if asked is None or not any((asked.user, asked.role, asked.type, asked.level)):
            return
        if not self.is_enabled:
            self._ignore(asked)
        elif not security.privileged and asked.type not in _UNCONSTRAINED:
            why = self.unavailable_reason if self.contexts is None else "its pod was created without labels"
            raise FailedPrecondition(f"{_FIELD}: {asked}: {why}")

    def _ignore(self, asked: SelinuxOptions) -> None:
        """Logged once: a kubelet may ask with every pod."""
        if not self._told:
            self._told = True
            log.warning("%s are ignored (%s): %s; logged only once", _FIELD, asked, self.unavailable_reason)
