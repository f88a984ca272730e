"""AppArmor profiles of containers' processes, on a host with AppArmor (apparmor(7)).

The default profile is in the policies' folder and loaded when the daemon starts; other profiles named by
requests have to be loaded by the node's administrator.
"""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

from phantom_cri.errors import FailedPrecondition, Internal, InvalidArgument, kernel_error
from phantom_cri.model import ContainerSecurity

DEFAULT_PROFILE = "phantom-default"
"""Name of the default profile, and of its file in the policies' folder."""

_FIELD = "security_context.apparmor"
_SWITCH = Path("/sys/module/apparmor/parameters/enabled")
_LOADED = Path("/sys/kernel/security/apparmor/profiles")
_PARSER_SECONDS = 30.0


def enabled(switch: Path = _SWITCH) -> bool:
    """Whether AppArmor is enabled in this kernel; constant until a reboot."""
    try:
        return switch.read_text().strip() == "Y"
    except OSError:
        return False


def loaded(profiles: Path = _LOADED) -> frozenset[str]:
    """Names of the loaded profiles. Raises Internal, e.g. if securityfs is not mounted."""
    try:
        lines = profiles.read_text().splitlines()
    except OSError as error:
        raise kernel_error(f"read {profiles}", error.errno or errno.EIO) from error
    return frozenset(line.rpartition(" (")[0] for line in lines)  # "NAME (enforce)"


def load(file: Path) -> None:
    """Load the profiles in `file`, replacing loaded ones of the same names. Raises Internal."""
    command = ["apparmor_parser", "--replace", "--skip-cache", str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PARSER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Internal(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise Internal(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")


class AppArmor:
    """`default`: the profile for containers that do not name one, "" for unconfined."""

    def __init__(self, is_enabled: bool, default: str = "", profiles: Path = _LOADED) -> None:
        self.is_enabled, self.default, self._profiles = is_enabled, default, profiles

    def profile_of(self, security: ContainerSecurity) -> str:
        """The name of a loaded profile, "" for unconfined.

        CRI: without a request it is the runtime's default; a privileged container does not get the default,
        but gets one that it names. Raises FailedPrecondition, InvalidArgument.
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
