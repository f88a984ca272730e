"""A loaded policy, and what it makes of one container's wishes."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

from phantom_cri.codec import Record, to_json
from phantom_cri.errors import ConfigError
from phantom_cri.model import ContainerSecurity, SecurityProfile
from phantom_cri.policy.apparmor import NO_APPARMOR
from phantom_cri.policy.capabilities import CapabilitySets, capability_sets, names_in
from phantom_cri.policy.compiler import compile_filter
from phantom_cri.policy.document import PolicySource, read_policy
from phantom_cri.policy.oci import file_version, read_profile
from phantom_cri.policy.profile import MACHINE, Profile

_MOST_FILTERS = 256
_MOST_FILES = 64

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SeccompFilter(NamedTuple):
    """`bpf`: struct sock_filter records for seccomp(SECCOMP_SET_MODE_FILTER, flags); `digest`: of both."""

    bpf: bytes
    flags: int
    digest: str


class CompiledPolicy(Record, frozen=True, dict=True):
    """All that policy says about one container's process. Paths that an image lacks are skipped."""

    name: str
    seccomp: SeccompFilter | None
    capabilities: CapabilitySets
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    no_new_privs: bool
    apparmor: str = ""  # profile, "" for unconfined

    @cached_property
    def hash(self) -> str:
        """The same for the same policy on any day and in any process; hex."""
        said = (
            self.name,
            self.seccomp.digest if self.seccomp else "",
            self.capabilities,
            self.masked_paths,
            self.readonly_paths,
            self.no_new_privs,
            self.apparmor,
        )
        return hashlib.sha256(to_json(said)).hexdigest()


class Policy:
    """One policy of `policies/*.yaml`. Filters are compiled once for each profile and set of capabilities.

    `apparmor`: what the host has of it; nothing until somebody sets it.
    """

    def __init__(self, source: PolicySource) -> None:
        self.name = source.name
        self.default_capabilities = source.capabilities
        self.masked_paths = source.masked_paths
        self.readonly_paths = source.readonly_paths
        self.no_new_privs = source.no_new_privs
        self.apparmor = NO_APPARMOR
        self._profile = source.profile
        self._filters: _Recent[tuple[str, frozenset[str], str], SeccompFilter] = _Recent(_MOST_FILTERS)
        self._files: _Recent[tuple[str, Hashable], Profile] = _Recent(_MOST_FILES)

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read, check and compile for the default capabilities, so that no container waits for it.

        Raises ConfigError naming the file, the key and the value.
        """
        policy = cls(read_policy(path))
        for capabilities in (policy.default_capabilities, frozenset[str]()):
            policy._filter(policy._profile, capabilities)
        return policy

    def seccomp(
        self, profile: SecurityProfile | None, capabilities: frozenset[str], privileged: bool
    ) -> SeccompFilter | None:
        """The filter for a container that holds `capabilities` (names without CAP_); None: unconfined.

        CRI: no profile at all means unconfined, and privileged goes without whatever is asked. A Localhost
        file is read again when it has changed. A first use of a profile compiles for some 3 ms. Raises
        NotFound, InvalidArgument naming field, file and what is wrong.
        """
        if profile is None or privileged or profile.kind == "unconfined":
            return None
        if profile.kind == "runtime_default":
            return self._filter(self._profile, capabilities)
        path = profile.localhost_ref
        found = self._files.get((path, file_version(path)), lambda: read_profile(path))
        return self._filter(found, capabilities)

    def capabilities(self, security: ContainerSecurity) -> CapabilitySets:
        """Raises FailedPrecondition for one that this node cannot give."""
        return capability_sets(security, self.default_capabilities)

    def compile(self, security: ContainerSecurity) -> CompiledPolicy:
        """All of it. Raises what `seccomp`, `capabilities` and `AppArmor.profile_of` raise.

        The lists of paths are the request's own (CRI: empty means none); whoever asks without a kubelet takes
        `masked_paths` and `readonly_paths` of the policy. Privileged has neither.
        """
        capabilities = self.capabilities(security)
        held = names_in(capabilities.permitted)
        return CompiledPolicy(
            name=self.name,
            seccomp=self.seccomp(security.seccomp, held, security.privileged),
            capabilities=capabilities,
            masked_paths=() if security.privileged else security.masked_paths,
            readonly_paths=() if security.privileged else security.readonly_paths,
            no_new_privs=security.no_new_privs or (self.no_new_privs and not security.privileged),
            apparmor=self.apparmor.profile_of(security),
        )

    def _filter(self, profile: Profile, capabilities: frozenset[str]) -> SeccompFilter:
        relevant = capabilities & profile.capabilities_that_matter

        def build() -> SeccompFilter:
            bpf = compile_filter(profile, relevant)
            digest = hashlib.sha256(bpf + profile.flags.to_bytes(4, "little")).hexdigest()
            return SeccompFilter(bpf, profile.flags, digest)

        return self._filters.get((profile.digest, relevant, MACHINE), build)


def load_policies(folder: Path) -> dict[str, Policy]:
    """Every `*.yaml` in the folder by its name. Raises ConfigError: none there, or one that is wrong."""
    policies = {path.stem: Policy.load(path) for path in sorted(folder.glob("*.yaml"))}
    if not policies:
        raise ConfigError(f"policies: {folder}: no *.yaml there")
    return policies


class _Recent(Generic[K, V]):
    """The values that were asked for last, made on demand; safe to use from several threads."""

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
