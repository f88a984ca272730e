"""gRPC over Unix sockets: how a service is served and how one is called. The only importer of grpc.

`server` serves any services; `calls` is what all RPCs have in common; `client` connects.
"""

from __future__ import annotations

import os

# gRPC's EventEngine hands every packet from threads of its own to the one that waits for it, and each
# hand-over wakes a core. On an otherwise idle node a call takes 1.1 ms without it and 1.5 ms with it
# (grpcio 1.85, 2 cores); at full load there is no difference. Read when grpc is first imported.
os.environ.setdefault(
    "GRPC_EXPERIMENTS", "-event_engine_listener,-event_engine_client,-event_engine_callback_cq"
)
