"""User, capabilities and confinement of a process: the ops between its root and its execve.

Order, as in runc: a seccomp filter is loaded last if no_new_privs allows that for an unprivileged process,
else before the capabilities are dropped, since it then needs CAP_SYS_ADMIN (seccomp(2)). chdir runs as the
user but still with all capabilities: this works for root's folder with mode 0700 and for one on an NFS export
that squashes root.
"""

from __future__ import annotations

from functools import lru_cache

from phantom_cri.model import CompiledPolicy, User
from phantom_cri.plans.ops import (
    Bounding,
    Capabilities,
    Chdir,
    Ids,
    NoNewPrivs,
    Op,
    Rlimit,
    Seccomp,
    Umask,
    pack_groups,
)
from phantom_cri.plans.plan import Block
from phantom_cri.plans.spec import Limit


@lru_cache(maxsize=256)
def limited(rlimits: tuple[Limit, ...]) -> Block:
    """Runs before a user namespace is entered: inside, hard limits cannot be raised (getrlimit(2))."""
    return Block(*[Rlimit(*limit) for limit in rlimits])


@lru_cache(maxsize=256)
def credentials(policy: CompiledPolicy, user: User, cwd: str, umask: int) -> Block:
    sets = policy.capabilities
    made: list[Op] = [Umask(umask), Bounding(sets.bounding)]
    filters = [Seccomp(policy.seccomp, policy.seccomp_flags)] if policy.seccomp else []
    if policy.no_new_privs:
        made.append(NoNewPrivs())
    else:
        made += filters
    made += [
        Ids(user.uid, user.gid, pack_groups(user.groups)),
        Chdir(cwd),
        Capabilities(sets.effective, sets.permitted, sets.inheritable, sets.ambient),
    ]
    if policy.no_new_privs:
        made += filters
    return Block(*made)
