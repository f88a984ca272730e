# Written by api/generate: change the .proto instead.
# ruff: noqa

import grpc.aio

from phantom_cri.api.containerd import ttrpc_pb2
