"""All policies of a node, by name, and the default one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from phantom_cri.errors import ConfigError
from phantom_cri.policy.apparmor import NO_APPARMOR, AppArmor
from phantom_cri.policy.policy import Policy


class PolicyBook:
    """`default`: the policy of pods whose handler names no other."""

    def __init__(self, policies: Mapping[str, Policy], default: str) -> None:
        self._policies = dict(policies)
        self.default = self.get(default, "policy.default")

    @classmethod
    def load(cls, folder: Path, default: str = "default", apparmor: AppArmor = NO_APPARMOR) -> PolicyBook:
        """Load every `*.yaml` in the folder. Raises ConfigError: none, an invalid one, an unknown default."""
        policies = {path.stem: Policy.load(path, apparmor) for path in sorted(folder.glob("*.yaml"))}
        if not policies:
            raise ConfigError(f"policies: {folder}: contains no *.yaml")
        return cls(policies, default)

    def get(self, name: str, field: str = "policy") -> Policy:
        """Raises ConfigError naming `field`, the key of the configuration, and the known policies."""
        try:
            return self._policies[name]
        except KeyError:
            there = ", ".join(sorted(self._policies))
            raise ConfigError(f"{field}: unknown policy {name!r}, known are {there}") from None

    def __iter__(self) -> Iterator[Policy]:
        return iter(self._policies.values())
