"""Converts usage to ContainerStats, PodSandboxStats, metrics.

The kubelet dereferences without checks: attributes and their metadata, a pod's `linux`, and a network's
`default_interface` are always set, or the enclosing message is absent.
"""

from __future__ import annotations

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.convert.image import filesystem_message
from phantom_cri.usage import (
    CgroupUsage,
    ContainerUsage,
    InterfaceUsage,
    MemoryUsage,
    Metric,
    PodMetrics,
    PodUsage,
    Pressure,
    Sample,
    Stalls,
)

_METRIC_TYPES = {"counter": pb.COUNTER, "gauge": pb.GAUGE}


def _number(value: int) -> pb.UInt64Value:
    return pb.UInt64Value(value=value)


def container_stats_message(usage: ContainerUsage) -> pb.ContainerStats:
    """A container that does not run only has attributes, and its writable layer if known."""
    record, cgroup = usage.record, usage.cgroup
    config = record.config
    message = pb.ContainerStats(
        attributes=pb.ContainerAttributes(
            id=record.id,
            metadata=pb.ContainerMetadata(name=config.metadata.name, attempt=config.metadata.attempt),
            labels=config.labels,
            annotations=config.annotations,
        ),
        writable_layer=filesystem_message(usage.layer) if usage.layer else None,
    )
    if cgroup is not None:
        message.cpu.CopyFrom(_cpu_message(cgroup, usage.nano_cores))
        message.io.CopyFrom(_io_message(cgroup))
        if cgroup.memory is not None:
            message.memory.CopyFrom(_memory_message(cgroup.memory, cgroup.timestamp))
            message.swap.CopyFrom(_swap_message(cgroup.memory, cgroup.timestamp))
    return message


def pod_stats_message(usage: PodUsage) -> pb.PodSandboxStats:
    config, cgroup = usage.record.config, usage.cgroup
    metadata = config.metadata
    return pb.PodSandboxStats(
        attributes=pb.PodSandboxAttributes(
            id=usage.record.id,
            metadata=pb.PodSandboxMetadata(
                name=metadata.name, uid=metadata.uid, namespace=metadata.namespace, attempt=metadata.attempt
            ),
            labels=config.labels,
            annotations=config.annotations,
        ),
        linux=pb.LinuxPodSandboxStats(
            cpu=_cpu_message(cgroup, usage.nano_cores),
            memory=_memory_message(cgroup.memory, cgroup.timestamp) if cgroup.memory else None,
            network=_network_message(usage) if usage.interfaces else None,
            process=pb.ProcessUsage(timestamp=cgroup.timestamp, process_count=_number(cgroup.tasks.tasks)),
            containers=map(container_stats_message, usage.containers),
            io=_io_message(cgroup),
        ),
    )


def _cpu_message(cgroup: CgroupUsage, nano_cores: int | None) -> pb.CpuUsage:
    return pb.CpuUsage(
        timestamp=cgroup.timestamp,
        usage_core_nano_seconds=_number(cgroup.cpu.usage_ns),
        usage_nano_cores=None if nano_cores is None else _number(nano_cores),
        psi=_psi_message(cgroup.cpu.stalls),
    )


def _memory_message(memory: MemoryUsage, timestamp: int) -> pb.MemoryUsage:
    """Available memory is unknown without a limit."""
    available = max(0, memory.limit - memory.working_set)
    return pb.MemoryUsage(
        timestamp=timestamp,
        working_set_bytes=_number(memory.working_set),
        available_bytes=_number(available) if memory.limit else None,
        usage_bytes=_number(memory.usage),
        rss_bytes=_number(memory.rss),
        page_faults=_number(memory.page_faults),
        major_page_faults=_number(memory.major_page_faults),
        psi=_psi_message(memory.stalls),
    )


def _swap_message(memory: MemoryUsage, timestamp: int) -> pb.SwapUsage:
    """Available swap is the difference of the two limits, less the usage."""
    swap_limit = (memory.swap_limit or 0) - memory.limit if memory.limit else 0
    return pb.SwapUsage(
        timestamp=timestamp,
        swap_available_bytes=_number(max(0, swap_limit - memory.swap)) if memory.swap_limit else None,
        swap_usage_bytes=_number(memory.swap),
    )


def _io_message(cgroup: CgroupUsage) -> pb.IoUsage:
    return pb.IoUsage(timestamp=cgroup.timestamp, psi=_psi_message(cgroup.io.stalls))


def _psi_message(stalls: Stalls | None) -> pb.PsiStats | None:
    if stalls is None:
        return None
    return pb.PsiStats(Full=_psi_data(stalls.full), Some=_psi_data(stalls.some))


def _psi_data(pressure: Pressure) -> pb.PsiData:
    return pb.PsiData(
        Total=pressure.total_ns, Avg10=pressure.avg10, Avg60=pressure.avg60, Avg300=pressure.avg300
    )


def _network_message(usage: PodUsage) -> pb.NetworkUsage:
    default, *others = map(_interface_message, usage.interfaces)
    return pb.NetworkUsage(timestamp=usage.network_timestamp, default_interface=default, interfaces=others)


def _interface_message(interface: InterfaceUsage) -> pb.NetworkInterfaceUsage:
    return pb.NetworkInterfaceUsage(
        name=interface.name,
        rx_bytes=_number(interface.rx_bytes),
        rx_errors=_number(interface.rx_errors),
        tx_bytes=_number(interface.tx_bytes),
        tx_errors=_number(interface.tx_errors),
    )


def metric_descriptor_message(metric: Metric) -> pb.MetricDescriptor:
    return pb.MetricDescriptor(name=metric.name, help=metric.help, label_keys=metric.labels)


def pod_metrics_message(pod: PodMetrics) -> pb.PodSandboxMetrics:
    return pb.PodSandboxMetrics(
        pod_sandbox_id=pod.sandbox_id,
        metrics=map(_metric_message, pod.samples),
        container_metrics=[
            pb.ContainerMetrics(container_id=container_id, metrics=map(_metric_message, samples))
            for container_id, samples in pod.containers
        ],
    )


def _metric_message(sample: Sample) -> pb.Metric:
    return pb.Metric(
        name=sample.metric.name,
        timestamp=sample.timestamp,
        metric_type=_METRIC_TYPES[sample.metric.kind],
        label_values=sample.labels,
        value=_number(sample.value),
    )
