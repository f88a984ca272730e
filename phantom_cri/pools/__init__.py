"""Pools of warm fragments: started in advance, claimed by a function call.

`Pool` knows nothing of namespaces or sockets; its owner passes functions that start, check and end a
member. `Profile` describes what the members of one pool have in common, and which pods can use them.
"""

from phantom_cri.pools.pool import Pool, PoolStatistics
from phantom_cri.pools.profile import Profile, choose, misfit_reason

__all__ = ["Pool", "PoolStatistics", "Profile", "choose", "misfit_reason"]
