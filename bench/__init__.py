"""The same pod cycle over any CRI endpoint, measured side by side: `python -m bench`.

The client's gRPC reads its socket in the calling thread (no EventEngine): less of what is measured is the
client, for every contender alike. See phantom_cri/cri/__init__.py.
"""

import os

os.environ.setdefault(
    "GRPC_EXPERIMENTS", "-event_engine_listener,-event_engine_client,-event_engine_callback_cq"
)
