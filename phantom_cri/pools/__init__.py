"""Warm fragments: started before anybody asks, handed out in a function call.

`Pool` knows nothing of namespaces or sockets; whoever composes it says how a
member is started, checked and ended. `Profile` is what members of one pool have in
common and what a pod must ask for to get one.
"""

from phantom_cri.pools.pool import Pool, PoolStatistics
from phantom_cri.pools.profile import Profile, choose, misfit_reason

__all__ = ["Pool", "PoolStatistics", "Profile", "choose", "misfit_reason"]
