# Written by api/generate: change the .proto instead.
# ruff: noqa

import grpc.aio

from phantom_cri.api.phantom.v1 import node_pb2

class NodeStub:
    def __init__(self, channel: grpc.aio.Channel) -> None: ...
    ListPools: grpc.aio.UnaryUnaryMultiCallable[node_pb2.ListPoolsRequest, node_pb2.ListPoolsResponse]
    ListPodStarts: grpc.aio.UnaryUnaryMultiCallable[node_pb2.ListPodStartsRequest, node_pb2.ListPodStartsResponse]
    ListPolicies: grpc.aio.UnaryUnaryMultiCallable[node_pb2.ListPoliciesRequest, node_pb2.ListPoliciesResponse]
    ShowPlan: grpc.aio.UnaryUnaryMultiCallable[node_pb2.ShowPlanRequest, node_pb2.ShowPlanResponse]
    Pull: grpc.aio.UnaryStreamMultiCallable[node_pb2.PullRequest, node_pb2.Progress]
    LoadImage: grpc.aio.UnaryStreamMultiCallable[node_pb2.LoadImageRequest, node_pb2.Progress]
    Doctor: grpc.aio.UnaryUnaryMultiCallable[node_pb2.DoctorRequest, node_pb2.DoctorResponse]
