# Written by api/generate: change the .proto instead.
# ruff: noqa

import grpc.aio

from phantom_cri.api.cri.v1 import api_pb2

class RuntimeServiceStub:
    def __init__(self, channel: grpc.aio.Channel) -> None: ...
    Version: grpc.aio.UnaryUnaryMultiCallable[api_pb2.VersionRequest, api_pb2.VersionResponse]
    RunPodSandbox: grpc.aio.UnaryUnaryMultiCallable[api_pb2.RunPodSandboxRequest, api_pb2.RunPodSandboxResponse]
    StopPodSandbox: grpc.aio.UnaryUnaryMultiCallable[api_pb2.StopPodSandboxRequest, api_pb2.StopPodSandboxResponse]
    RemovePodSandbox: grpc.aio.UnaryUnaryMultiCallable[api_pb2.RemovePodSandboxRequest, api_pb2.RemovePodSandboxResponse]
    PodSandboxStatus: grpc.aio.UnaryUnaryMultiCallable[api_pb2.PodSandboxStatusRequest, api_pb2.PodSandboxStatusResponse]
    ListPodSandbox: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ListPodSandboxRequest, api_pb2.ListPodSandboxResponse]
    StreamPodSandboxes: grpc.aio.UnaryStreamMultiCallable[api_pb2.StreamPodSandboxesRequest, api_pb2.StreamPodSandboxesResponse]
    CreateContainer: grpc.aio.UnaryUnaryMultiCallable[api_pb2.CreateContainerRequest, api_pb2.CreateContainerResponse]
    StartContainer: grpc.aio.UnaryUnaryMultiCallable[api_pb2.StartContainerRequest, api_pb2.StartContainerResponse]
    StopContainer: grpc.aio.UnaryUnaryMultiCallable[api_pb2.StopContainerRequest, api_pb2.StopContainerResponse]
    RemoveContainer: grpc.aio.UnaryUnaryMultiCallable[api_pb2.RemoveContainerRequest, api_pb2.RemoveContainerResponse]
    ListContainers: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ListContainersRequest, api_pb2.ListContainersResponse]
    StreamContainers: grpc.aio.UnaryStreamMultiCallable[api_pb2.StreamContainersRequest, api_pb2.StreamContainersResponse]
    ContainerStatus: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ContainerStatusRequest, api_pb2.ContainerStatusResponse]
    UpdateContainerResources: grpc.aio.UnaryUnaryMultiCallable[api_pb2.UpdateContainerResourcesRequest, api_pb2.UpdateContainerResourcesResponse]
    ReopenContainerLog: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ReopenContainerLogRequest, api_pb2.ReopenContainerLogResponse]
    ExecSync: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ExecSyncRequest, api_pb2.ExecSyncResponse]
    Exec: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ExecRequest, api_pb2.ExecResponse]
    Attach: grpc.aio.UnaryUnaryMultiCallable[api_pb2.AttachRequest, api_pb2.AttachResponse]
    PortForward: grpc.aio.UnaryUnaryMultiCallable[api_pb2.PortForwardRequest, api_pb2.PortForwardResponse]
    ContainerStats: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ContainerStatsRequest, api_pb2.ContainerStatsResponse]
    ListContainerStats: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ListContainerStatsRequest, api_pb2.ListContainerStatsResponse]
    StreamContainerStats: grpc.aio.UnaryStreamMultiCallable[api_pb2.StreamContainerStatsRequest, api_pb2.StreamContainerStatsResponse]
    PodSandboxStats: grpc.aio.UnaryUnaryMultiCallable[api_pb2.PodSandboxStatsRequest, api_pb2.PodSandboxStatsResponse]
    ListPodSandboxStats: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ListPodSandboxStatsRequest, api_pb2.ListPodSandboxStatsResponse]
    StreamPodSandboxStats: grpc.aio.UnaryStreamMultiCallable[api_pb2.StreamPodSandboxStatsRequest, api_pb2.StreamPodSandboxStatsResponse]
    UpdateRuntimeConfig: grpc.aio.UnaryUnaryMultiCallable[api_pb2.UpdateRuntimeConfigRequest, api_pb2.UpdateRuntimeConfigResponse]
    Status: grpc.aio.UnaryUnaryMultiCallable[api_pb2.StatusRequest, api_pb2.StatusResponse]
    CheckpointContainer: grpc.aio.UnaryUnaryMultiCallable[api_pb2.CheckpointContainerRequest, api_pb2.CheckpointContainerResponse]
    GetContainerEvents: grpc.aio.UnaryStreamMultiCallable[api_pb2.GetEventsRequest, api_pb2.ContainerEventResponse]
    ListMetricDescriptors: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ListMetricDescriptorsRequest, api_pb2.ListMetricDescriptorsResponse]
    ListPodSandboxMetrics: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ListPodSandboxMetricsRequest, api_pb2.ListPodSandboxMetricsResponse]
    StreamPodSandboxMetrics: grpc.aio.UnaryStreamMultiCallable[api_pb2.StreamPodSandboxMetricsRequest, api_pb2.StreamPodSandboxMetricsResponse]
    RuntimeConfig: grpc.aio.UnaryUnaryMultiCallable[api_pb2.RuntimeConfigRequest, api_pb2.RuntimeConfigResponse]
    UpdatePodSandboxResources: grpc.aio.UnaryUnaryMultiCallable[api_pb2.UpdatePodSandboxResourcesRequest, api_pb2.UpdatePodSandboxResourcesResponse]

class ImageServiceStub:
    def __init__(self, channel: grpc.aio.Channel) -> None: ...
    ListImages: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ListImagesRequest, api_pb2.ListImagesResponse]
    StreamImages: grpc.aio.UnaryStreamMultiCallable[api_pb2.StreamImagesRequest, api_pb2.StreamImagesResponse]
    ImageStatus: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ImageStatusRequest, api_pb2.ImageStatusResponse]
    PullImage: grpc.aio.UnaryUnaryMultiCallable[api_pb2.PullImageRequest, api_pb2.PullImageResponse]
    RemoveImage: grpc.aio.UnaryUnaryMultiCallable[api_pb2.RemoveImageRequest, api_pb2.RemoveImageResponse]
    ImageFsInfo: grpc.aio.UnaryUnaryMultiCallable[api_pb2.ImageFsInfoRequest, api_pb2.ImageFsInfoResponse]
