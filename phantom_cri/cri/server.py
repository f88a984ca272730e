"""The daemon's gRPC server: all services on one socket, for kubelet, crictl and `phantom`."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.descriptor import ServiceDescriptor

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.api.phantom.v1 import node_pb2
from phantom_cri.cri.image_service import ImageService
from phantom_cri.cri.node_service import NodeService, NodeVerbs
from phantom_cri.cri.runtime_service import RuntimeService
from phantom_cri.cri.verbs import ImageVerbs, RuntimeVerbs
from phantom_cri.rpc.calls import Calls
from phantom_cri.rpc.server import Server


def cri_server(
    path: Path | str,
    runtime: RuntimeVerbs,
    images: ImageVerbs,
    calls: Calls,
    *,
    node: NodeVerbs | None = None,
    grace_s: float = 10,
) -> Server:
    """RuntimeService, ImageService and, with `node`, our own Node service; `grace_s` as in `Server`."""
    services = pb.DESCRIPTOR.services_by_name
    served: list[tuple[ServiceDescriptor, object]] = [
        (services["RuntimeService"], RuntimeService(runtime)),
        (services["ImageService"], ImageService(images)),
    ]
    if node is not None:
        served.append((node_pb2.DESCRIPTOR.services_by_name["Node"], NodeService(node)))
    return Server(path, served, calls, grace_s=grace_s)
