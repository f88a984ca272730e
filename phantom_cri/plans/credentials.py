"""Who a process is and what it may: the ops between its root and its execve.

Order, as runc has it: a filter goes in last where no_new_privs allows that to an unprivileged process, else
before the capabilities are dropped, as it takes CAP_SYS_ADMIN then (seccomp(2)).
The folder is changed as the user but still with all capabilities: so a folder of root's with mode 0700 is as
good as one on an NFS export that squashes root.
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
    """Before a user namespace is entered: from inside, nobody may raise a hard limit (getrlimit(2))."""
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
