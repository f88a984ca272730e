"""What plugins get of a pod: capability arguments (CNI CONVENTIONS.md) and CNI_ARGS."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any

from phantom_cri import errors
from phantom_cri.model import PortMapping, SandboxConfig

Arguments = Mapping[str, Any]

OF_EVERY_POD = frozenset({"dns", "cgroupPath", "io.kubernetes.cri.pod-annotations"})
"""Capabilities that every pod has, so that plugins with them need to know the pod."""

_INGRESS = "kubernetes.io/ingress-bandwidth"
_EGRESS = "kubernetes.io/egress-bandwidth"
_BURST = (1 << 31) - 1  # bits; practically no limit, and the value that the kubelet once used
_LEAST, _MOST = Decimal(1000), Decimal(10) ** 15  # bits per second (Kubernetes' util/bandwidth)

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d{1,3}|)", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "": 0}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}

_ARGUMENT = re.compile(r"[^;=\0\n]*")


def generic_args(sandbox_id: str) -> str:
    """CNI_ARGS of a namespace without a pod."""
    return f"IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID={sandbox_id}"


def pod_args(sandbox_id: str, pod: SandboxConfig) -> str:
    """CNI_ARGS of a pod, as in containerd. Raises InvalidArgument for a value with a separator."""
    values = {"namespace": pod.metadata.namespace, "name": pod.metadata.name, "uid": pod.metadata.uid}
    for field, value in values.items():
        if not _ARGUMENT.fullmatch(value):
            raise errors.InvalidArgument(
                f"config.metadata.{field}: {value!r} cannot be passed to a CNI plugin"
            )
    return (
        f"IgnoreUnknown=1;K8S_POD_NAMESPACE={values['namespace']};K8S_POD_NAME={values['name']};"
        f"K8S_POD_INFRA_CONTAINER_ID={sandbox_id};K8S_POD_UID={values['uid']}"
    )


def of_node(ranges: Sequence[str]) -> dict[str, Any]:
    """Capabilities that are the same for every pod. ranges: the node's pod CIDRs, one address pool each."""
    return {"ipRanges": [[{"subnet": cidr}] for cidr in ranges]} if ranges else {}


def of_pod(pod: SandboxConfig) -> dict[str, Any]:
    """Capabilities requested by the pod; others are omitted. Raises InvalidArgument."""
    found: dict[str, Any] = {}
    ports = [_port(mapping) for mapping in pod.port_mappings if mapping.host_port]
    if ports:
        found["portMappings"] = ports
    bandwidth = _bandwidth(pod.annotations)
    if bandwidth:
        found["bandwidth"] = bandwidth
    if pod.dns is not None:
        dns = pod.dns
        lists = {"servers": dns.servers, "searches": dns.searches, "options": dns.options}
        found["dns"] = {key: list(values) for key, values in lists.items()}
    if pod.cgroup_parent:
        found["cgroupPath"] = pod.cgroup_parent
    if pod.annotations:
        found["io.kubernetes.cri.pod-annotations"] = dict(pod.annotations)
    return found


def _port(mapping: PortMapping) -> dict[str, Any]:
    for name, port in (("host_port", mapping.host_port), ("container_port", mapping.container_port)):
        if not 0 < port < 65536:
            raise errors.InvalidArgument(f"port_mappings: {name} {port} is not within 1…65535")
    if mapping.host_ip:
        try:
            ipaddress.ip_address(mapping.host_ip)
        except ValueError as error:
            raise errors.InvalidArgument(
                f"port_mappings: host_ip {mapping.host_ip!r} is not an IP address"
            ) from error
    return {
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": mapping.protocol,
        "hostIP": mapping.host_ip,
    }


def _bandwidth(annotations: Mapping[str, str]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for direction, key in (("ingress", _INGRESS), ("egress", _EGRESS)):
        if key in annotations:
            limits[f"{direction}Rate"] = _rate(key, annotations[key])
            limits[f"{direction}Burst"] = _BURST
    return limits


def _rate(key: str, text: str) -> int:
    """Bits per second."""
    value = quantity(text)
    if value is None:
        raise errors.InvalidArgument(f"annotations[{key}]: {text!r} is not a quantity such as 10M")
    if not _LEAST <= value <= _MOST:
        raise errors.InvalidArgument(f"annotations[{key}]: {text!r} is not between 1k and 1P bits per second")
    return int(value.to_integral_value(ROUND_CEILING))


def quantity(text: str) -> Decimal | None:
    """A Kubernetes quantity (`10M`, `1.5Gi`, `2e6`), None if it is invalid."""
    match = _QUANTITY.fullmatch(text) if len(text) <= 64 else None
    if match is None:
        return None
    number, suffix = Decimal(match[1]), match[2]
    if suffix in _BINARY:
        return number * (1 << _BINARY[suffix])
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    return number.scaleb(exponent)
