"""What an OCI runtime spec says of capabilities and seccomp: taken as it is, whatever our policies say."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from phantom_cri.errors import FailedPrecondition, InvalidArgument
from phantom_cri.policy.capabilities import (
    grantable,
    is_capability,
    known_to_kernel,
    mask_of,
    names_in,
    normalise,
)
from phantom_cri.policy.compiler import compile_filter
from phantom_cri.policy.oci import SeccompDocument, profile_of
from phantom_cri.policy.policy import SeccompFilter


@lru_cache(maxsize=64)
def given_filter(document: SeccompDocument, field: str) -> SeccompFilter:
    """A first use compiles for some 3 ms. Raises InvalidArgument naming `field` and what is wrong in it."""
    profile = profile_of(field, document)
    return SeccompFilter(compile_filter(profile, frozenset()), profile.flags)


def mask_of_names(names: Iterable[str], field: str) -> int:
    """Capabilities as a mask. Raises InvalidArgument (no such one), FailedPrecondition (not held here)."""
    listed = list(names)
    for name in listed:
        if not is_capability(name):
            raise InvalidArgument(f"{field}: {name!r}: no such capability")
    mask = mask_of(map(normalise, listed))
    lacking = mask & ~(grantable() & known_to_kernel())
    if lacking:
        wanted = ", ".join(sorted(names_in(lacking)))
        raise FailedPrecondition(f"{field}: {wanted}: not held on this node, so it cannot be given")
    return mask
