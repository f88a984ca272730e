"""gRPC over Unix sockets: servers and clients. The only importer of grpc.

`server` serves services; `calls` wraps all RPCs; `client` connects.
"""

from __future__ import annotations

import os

# gRPC's EventEngine passes every packet between threads, and each time wakes a core. On an idle node a call
# takes 1.1 ms without it and 1.5 ms with it (grpcio 1.85, 2 cores); at full load there is no difference. The
# variable is read when grpc is first imported.
os.environ.setdefault(
    "GRPC_EXPERIMENTS", "-event_engine_listener,-event_engine_client,-event_engine_callback_cq"
)
