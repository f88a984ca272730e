"""A loaded policy, and its application to a container's request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

from phantom_cri.model import CapabilitySets, CompiledPolicy, ContainerSecurity, SecurityProfile
from phantom_cri.policy.apparmor import NO_APPARMOR, AppArmor
from phantom_cri.policy.capabilities import capability_sets, names_in
from phantom_cri.policy.compiler import compile_filter
from phantom_cri.policy.document import PolicySource, read_policy
from phantom_cri.policy.oci import file_version, read_profile
from phantom_cri.policy.profile import MACHINE, Profile

_MOST_FILTERS = 256
_MOST_FILES = 64

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SeccompFilter(NamedTuple):
    """`bpf`: struct sock_filter records for seccomp(SECCOMP_SET_MODE_FILTER, flags)."""

    bpf: bytes
    flags: int


class Policy:
    """One policy of `policies/*.yaml`. Filters are compiled once for each profile and set of capabilities.

    `digest`: of the file's content. `apparmor`: AppArmor on this host.
    """

    def __init__(self, source: PolicySource, apparmor: AppArmor = NO_APPARMOR) -> None:
        self.name, self.digest = source.name, source.digest
        self.default_capabilities = source.capabilities
        self.masked_paths = source.masked_paths
        self.readonly_paths = source.readonly_paths
        self.no_new_privs = source.no_new_privs
        self.unmask = source.unmask
        self._apparmor = apparmor
        self._profile = source.profile
        self._filters: _Recent[tuple[str, frozenset[str], str], SeccompFilter] = _Recent(_MOST_FILTERS)
        self._files: _Recent[tuple[str, Hashable], Profile] = _Recent(_MOST_FILES)

    @classmethod
    def load(cls, path: Path, apparmor: AppArmor = NO_APPARMOR) -> Policy:
        """Read, check and compile for the default capabilities, so that no container has to wait for it.

        Raises ConfigError naming the file, the key and the value.
        """
        policy = cls(read_policy(path), apparmor)
        for capabilities in (policy.default_capabilities, frozenset[str]()):
            policy._filter(policy._profile, capabilities)
        return policy

    def seccomp(
        self, profile: SecurityProfile | None, capabilities: frozenset[str], privileged: bool
    ) -> SeccompFilter | None:
        """The filter for a container with `capabilities` (names without CAP_); None: unconfined.

        CRI: without a profile it is unconfined, and privileged containers always are. A Localhost file is
        read again when it has changed. The first use of a profile compiles it, which takes some 3 ms. Raises
        NotFound, InvalidArgument naming field, file and mistake.
        """
        if profile is None or privileged or profile.kind == "unconfined":
            return None
        if profile.kind == "runtime_default":
            return self._filter(self._profile, capabilities)
        path = profile.localhost_ref
        found = self._files.get((path, file_version(path)), lambda: read_profile(path))
        return self._filter(found, capabilities)

    def capabilities(self, security: ContainerSecurity) -> CapabilitySets:
        """Raises FailedPrecondition for one that this node cannot grant."""
        return capability_sets(security, self.default_capabilities)

    def compile(self, security: ContainerSecurity) -> CompiledPolicy:
        """The whole policy. Raises the errors of `seccomp`, `capabilities` and `AppArmor.profile_of`."""
        capabilities = self.capabilities(security)
        held = names_in(capabilities.permitted)
        seccomp = self.seccomp(security.seccomp, held, security.privileged)
        masked, readonly = self._paths(security)
        return CompiledPolicy(
            name=self.name,
            capabilities=capabilities,
            no_new_privs=security.no_new_privs or (self.no_new_privs and not security.privileged),
            seccomp=seccomp.bpf if seccomp else b"",
            seccomp_flags=seccomp.flags if seccomp else 0,
            masked_paths=masked,
            readonly_paths=readonly,
            apparmor=self._apparmor.profile_of(security),
        )

    def _paths(self, security: ContainerSecurity) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Masked and read-only paths: the union of the policy's and the request's.

        None for a privileged container, as in CRI. With `unmask` in the policy only the request's lists are
        used, as in CRI: a kubelet sends no paths for procMount Unmasked.
        """
        if security.privileged:
            return (), ()
        if self.unmask == "allowed":
            return security.masked_paths, security.readonly_paths
        masked = tuple(dict.fromkeys((*self.masked_paths, *security.masked_paths)))
        readonly = tuple(dict.fromkeys((*self.readonly_paths, *security.readonly_paths)))
        hidden = frozenset(masked)
        return masked, tuple(path for path in readonly if path not in hidden)

    def _filter(self, profile: Profile, capabilities: frozenset[str]) -> SeccompFilter:
        relevant = capabilities & profile.capabilities_that_matter

        def build() -> SeccompFilter:
            return SeccompFilter(compile_filter(profile, relevant), profile.flags)

        return self._filters.get((profile.digest, relevant, MACHINE), build)


class _Recent(Generic[K, V]):
    """A cache of the most recently used values, made on demand; thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value
