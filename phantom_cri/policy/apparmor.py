"""AppArmor: which profile a container's processes run under, on a host that has it (apparmor(7)).

The default profile lies beside the policies and is loaded when the daemon starts; profiles that a request
names are the node's own affair and have to be loaded already.
"""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

from phantom_cri.errors import FailedPrecondition, Internal, InvalidArgument, kernel_error
from phantom_cri.model import ContainerSecurity

DEFAULT_PROFILE = "phantom-default"
"""Name of the profile, and of its file in the policies' folder."""

_FIELD = "security_context.apparmor"
_SWITCH = Path("/sys/module/apparmor/parameters/enabled")
_LOADED = Path("/sys/kernel/security/apparmor/profiles")
_PARSER_SECONDS = 30.0


def enabled(switch: Path = _SWITCH) -> bool:
    """Whether this kernel runs with AppArmor; that does not change while it runs."""
    try:
        return switch.read_text().strip() == "Y"
    except OSError:
        return False


def loaded(profiles: Path = _LOADED) -> frozenset[str]:
    """Names of the profiles that the kernel has. Raises Internal, as where securityfs is not mounted."""
    try:
        lines = profiles.read_text().splitlines()
    except OSError as error:
        raise kernel_error(f"read {profiles}", error.errno or errno.EIO) from error
    return frozenset(line.rpartition(" (")[0] for line in lines)  # "NAME (enforce)"


def load(file: Path) -> None:
    """Load the profiles in `file`, in place of older ones of their names. Raises Internal saying why not."""
    command = ["apparmor_parser", "--replace", "--skip-cache", str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PARSER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Internal(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise Internal(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")


class AppArmor:
    """`default`: the profile for who asks for none in particular, "" for unconfined."""

    def __init__(self, is_enabled: bool, default: str = "", profiles: Path = _LOADED) -> None:
        self.is_enabled, self.default, self._profiles = is_enabled, default, profiles

    def profile_of(self, security: ContainerSecurity) -> str:
        """The name of a loaded profile, "" for unconfined.

        CRI: nothing asked for means the runtime's default; a privileged container goes without it, but gets
        the one it names. Raises FailedPrecondition, InvalidArgument.
        """
        asked = security.apparmor
        if asked is not None and asked.kind == "unconfined":
            return ""
        if asked is None or asked.kind == "runtime_default":
            return "" if security.privileged else self.default
        name = asked.localhost_ref
        if not self.is_enabled:
            raise FailedPrecondition(f"{_FIELD}: profile {name!r}: AppArmor is not enabled on this host")
        if name not in loaded(self._profiles):
            raise InvalidArgument(f"{_FIELD}: profile {name!r} is not loaded on this host")
        return name


NO_APPARMOR = AppArmor(False)
