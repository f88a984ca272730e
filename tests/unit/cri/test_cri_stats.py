"""Stats, metrics and events on the wire: what must be set is set, what is not known is absent."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.convert.stats import container_stats_message, pod_stats_message
from phantom_cri.errors import ResourceExhausted
from phantom_cri.model import (
    ContainerConfig,
    ContainerEvent,
    ContainerMetadata,
    ContainerRecord,
    FilesystemUsage,
    ImageSpec,
    SandboxConfig,
    SandboxMetadata,
    SandboxRecord,
)
from phantom_cri.usage import (
    CgroupUsage,
    ContainerUsage,
    CpuUsage,
    InterfaceUsage,
    IoUsage,
    MemoryUsage,
    Metric,
    PodMetrics,
    PodUsage,
    Pressure,
    Sample,
    Stalls,
    TaskUsage,
)
from tests.unit.cri.test_cri_server import Wire, refused, wire

__all__ = ["wire"]

POD = SandboxRecord(
    id="a" * 64,
    config=SandboxConfig(
        metadata=SandboxMetadata(name="p", uid="u", namespace="n", attempt=2),
        labels={"l": "1"},
        annotations={"a": "2"},
    ),
    created_at=1,
)
CONTAINER = ContainerRecord(
    id="b" * 64,
    sandbox_id=POD.id,
    config=ContainerConfig(
        metadata=ContainerMetadata(name="c", attempt=3),
        image=ImageSpec(image="i"),
        labels={"l": "1"},
        annotations={"a": "2"},
    ),
    image_id="sha256:1",
    image_ref="r",
    image_name="i",
    created_at=2,
)
STALLS = Stalls(some=Pressure(5, 0.5, 0.25, 0.125), full=Pressure(4))
CGROUP = CgroupUsage(
    timestamp=77,
    cpu=CpuUsage(usage_ns=900, stalls=STALLS),
    memory=MemoryUsage(
        usage=100, working_set=60, rss=50, swap=7, page_faults=8, major_page_faults=2, limit=64
    ),
    io=IoUsage(None, STALLS),
    tasks=TaskUsage(3),
)
LAYER = FilesystemUsage(timestamp=5, mountpoint="/root", used_bytes=11, inodes_used=4)
USAGE = ContainerUsage(CONTAINER, CGROUP, 250, LAYER)
ETH0 = InterfaceUsage("eth0", 1, 2, 3, 4, 5, 6, 7, 8)
POD_USAGE = PodUsage(POD, CGROUP, None, 78, (ETH0, ETH0._replace(name="net1")), (USAGE,))


def test_a_container_that_does_not_run_has_its_attributes() -> None:
    message = container_stats_message(ContainerUsage(CONTAINER, None, None, None))
    assert message.attributes.metadata.name == "c" and message.attributes.id == CONTAINER.id
    assert not any(message.HasField(name) for name in ("cpu", "memory", "swap", "io", "writable_layer"))


def test_a_running_container() -> None:
    message = container_stats_message(USAGE)
    assert message.attributes.metadata.attempt == 3
    assert (dict(message.attributes.labels), dict(message.attributes.annotations)) == ({"l": "1"}, {"a": "2"})
    assert (message.cpu.timestamp, message.memory.timestamp, message.swap.timestamp) == (77, 77, 77)
    assert message.cpu.usage_core_nano_seconds.value == 900 and message.cpu.usage_nano_cores.value == 250
    assert (message.cpu.psi.Some.Total, message.cpu.psi.Full.Total, message.cpu.psi.Some.Avg10) == (5, 4, 0.5)
    assert message.memory.available_bytes.value == 4 and message.memory.rss_bytes.value == 50
    assert message.memory.page_faults.value == 8 and message.memory.major_page_faults.value == 2
    assert not message.memory.HasField("psi") and message.io.psi.Full.Total == 4
    assert message.swap.swap_usage_bytes.value == 7 and not message.swap.HasField("swap_available_bytes")
    assert (
        message.writable_layer.fs_id.mountpoint == "/root" and message.writable_layer.inodes_used.value == 4
    )


@pytest.mark.parametrize(
    ("limit", "swap_limit", "available"),
    [(64, 64, 0), (64, 84, 13), (64, 70, 0), (0, 0, None), (64, None, None)],
)
def test_swap_that_is_left(limit: int, swap_limit: int | None, available: int | None) -> None:
    memory = MemoryUsage(usage=1, working_set=1, swap=7, limit=limit, swap_limit=swap_limit)
    swap = container_stats_message(USAGE._replace(cgroup=CGROUP._replace(memory=memory))).swap
    assert (swap.swap_available_bytes.value if swap.HasField("swap_available_bytes") else None) == available


def test_no_limit_leaves_nothing_to_be_available_and_no_first_rate() -> None:
    memory = MemoryUsage(usage=1, working_set=1)
    message = container_stats_message(USAGE._replace(cgroup=CGROUP._replace(memory=memory), nano_cores=None))
    assert not message.memory.HasField("available_bytes") and not message.cpu.HasField("usage_nano_cores")


def test_a_pod_without_interfaces_has_no_network_at_all() -> None:
    """The kubelet dereferences a network's default interface."""
    message = pod_stats_message(POD_USAGE._replace(interfaces=()))
    assert message.HasField("linux") and not message.linux.HasField("network")


def test_a_pod() -> None:
    message = pod_stats_message(POD_USAGE)
    assert message.attributes.metadata.uid == "u" and dict(message.attributes.labels) == {"l": "1"}
    network = message.linux.network
    assert (network.timestamp, network.default_interface.name) == (78, "eth0")
    assert [one.name for one in network.interfaces] == ["net1"]
    default = network.default_interface
    assert (default.rx_bytes.value, default.rx_errors.value) == (1, 3)
    assert (default.tx_bytes.value, default.tx_errors.value) == (5, 7)
    assert message.linux.process.process_count.value == 3
    assert [one.attributes.id for one in message.linux.containers] == [CONTAINER.id]


async def test_stats_on_the_wire(wire: Wire) -> None:
    wire.verbs.container_usages, wire.verbs.pod_usages = [USAGE] * 20, [POD_USAGE] * 20
    code, text = await refused(wire.runtime.ContainerStats(pb.ContainerStatsRequest()))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and text.startswith("container_id")
    code, text = await refused(wire.runtime.PodSandboxStats(pb.PodSandboxStatsRequest()))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and text.startswith("pod_sandbox_id")
    one = await wire.runtime.ContainerStats(pb.ContainerStatsRequest(container_id=CONTAINER.id))
    assert one.stats == container_stats_message(USAGE)
    pod = await wire.runtime.PodSandboxStats(pb.PodSandboxStatsRequest(pod_sandbox_id=POD.id))
    assert pod.stats == pod_stats_message(POD_USAGE)
    wanted = pb.ContainerStatsFilter(id="b", pod_sandbox_id="a", label_selector={"x": "y"})
    listed = await wire.runtime.ListContainerStats(pb.ListContainerStatsRequest(filter=wanted))
    assert len(listed.stats) == 20 and wire.verbs.filters == ("b", "a", {"x": "y"})
    pods = await wire.runtime.ListPodSandboxStats(
        pb.ListPodSandboxStatsRequest(filter=pb.PodSandboxStatsFilter(id="a", label_selector={"x": "y"}))
    )
    assert len(pods.stats) == 20
    assert wire.verbs.filters == ("a", {"x": "y"})
    streamed = [
        stats
        async for chunk in wire.runtime.StreamContainerStats(pb.StreamContainerStatsRequest())
        for stats in chunk.container_stats
    ]
    assert streamed == list(listed.stats)


async def test_metrics_on_the_wire(wire: Wire) -> None:
    metric = Metric("container_x_total", "X.", "counter", ("id", "x"))
    sample = Sample(metric, 9, ("1", "2"), 1 << 63)
    wire.verbs.announced = [metric]
    wire.verbs.pod_metrics = [PodMetrics(POD.id, (sample,), (("b", (sample, sample)),))]
    (descriptor,) = (await wire.runtime.ListMetricDescriptors(pb.ListMetricDescriptorsRequest())).descriptors
    assert (descriptor.name, descriptor.help, list(descriptor.label_keys)) == (
        "container_x_total",
        "X.",
        ["id", "x"],
    )
    (pod,) = (await wire.runtime.ListPodSandboxMetrics(pb.ListPodSandboxMetricsRequest())).pod_metrics
    (container,) = pod.container_metrics
    assert (pod.pod_sandbox_id, container.container_id, len(container.metrics)) == (POD.id, "b", 2)
    (found,) = pod.metrics
    assert (found.timestamp, found.metric_type, found.value.value) == (9, pb.COUNTER, 1 << 63)
    assert list(found.label_values) == ["1", "2"]
    async for chunk in wire.runtime.StreamPodSandboxMetrics(pb.StreamPodSandboxMetricsRequest()):
        assert list(chunk.pod_sandbox_metrics) == [pod]


async def test_events_on_the_wire(wire: Wire) -> None:
    event = ContainerEvent(
        kind="stopped", object_id=CONTAINER.id, created_at=6, pod=POD, containers=(CONTAINER,)
    )
    wire.verbs.events, wire.verbs.events_end = [event], ResourceExhausted("fell behind")
    stream = wire.runtime.GetContainerEvents(pb.GetEventsRequest())
    told = await stream.read()
    assert isinstance(told, pb.ContainerEventResponse)
    assert (told.container_id, told.container_event_type) == (CONTAINER.id, pb.CONTAINER_STOPPED_EVENT)
    assert (told.created_at, told.pod_sandbox_status.id) == (6, POD.id)
    assert [one.id for one in told.containers_statuses] == [CONTAINER.id]
    with pytest.raises(grpc.aio.AioRpcError, match="fell behind") as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_listener_is_told_that_it_listens_and_let_go_when_it_leaves(wire: Wire) -> None:
    stream = wire.runtime.GetContainerEvents(pb.GetEventsRequest())
    await asyncio.wait_for(stream.initial_metadata(), 5)
    assert wire.verbs.listens.is_set()
    stream.cancel()
    await asyncio.wait_for(wire.verbs.let_go.wait(), 5)
