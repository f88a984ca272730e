"""What plugins are told of a pod."""

from __future__ import annotations

from decimal import Decimal

import pytest

from phantom_cri import errors
from phantom_cri.model import DnsConfig, PortMapping, SandboxConfig, SandboxMetadata
from phantom_cri.network.cni.capabilities import generic_args, of_node, of_pod, pod_args, quantity

INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"


def pod(**fields: object) -> SandboxConfig:
    return SandboxConfig(metadata=SandboxMetadata("web", "u-1", "shop"), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10M", 10_000_000),
        ("1Gi", 1 << 30),
        ("1.5k", 1500),
        (".5k", 500),
        ("5.", 5),
        ("1e3", 1000),
        ("2E6", 2_000_000),
        ("1E", 10**18),
        ("12e-1", "1.2"),
        ("100m", "0.1"),
        ("+7", 7),
        ("-7", -7),
        ("", None),
        ("M", None),
        ("10 M", None),
        ("10Mb", None),
        ("10m\n", None),
        ("\u0661", None),
        ("1e9999", None),
        ("1_000", None),
        ("0x10", None),
        ("nan", None),
        ("9" * 65, None),
    ],
)
def test_quantities_are_those_of_kubernetes(text: str, value: int | str | None) -> None:
    assert quantity(text) == (None if value is None else Decimal(value))


@pytest.mark.parametrize("key", [INGRESS, EGRESS])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("fast", "is not a quantity"),
        ("", "is not a quantity"),
        ("999", "is not between 1k and 1P"),
        ("-10M", "is not between"),
        ("1.1P", "is not between"),
    ],
)
def test_a_wrong_bandwidth_names_its_annotation(key: str, text: str, why: str) -> None:
    with pytest.raises(errors.InvalidArgument) as refusal:
        of_pod(pod(annotations={key: text}))
    assert f"annotations[{key}]: {text!r} {why}" in str(refusal.value)


def test_bandwidth_is_in_bits_per_second_and_each_way_for_itself() -> None:
    limits = of_pod(pod(annotations={INGRESS: "10M", "other": "x"}))["bandwidth"]
    assert limits == {"ingressRate": 10_000_000, "ingressBurst": (1 << 31) - 1}
    assert of_pod(pod(annotations={EGRESS: "1000.1"}))["bandwidth"]["egressRate"] == 1001


def test_only_ports_of_the_host_are_mapped() -> None:
    mappings = (PortMapping("udp", 53, 1053, "127.0.0.1"), PortMapping("tcp", 80, 0))
    told = of_pod(pod(port_mappings=mappings))
    assert told == {
        "portMappings": [{"hostPort": 1053, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"}]
    }
    assert of_pod(pod(port_mappings=mappings[1:])) == {}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (PortMapping("tcp", 80, 65536), "port_mappings: host_port 65536"),
        (PortMapping("tcp", 80, -1), "port_mappings: host_port -1"),
        (PortMapping("tcp", 0, 80), "port_mappings: container_port 0"),
        (PortMapping("tcp", 80, 80, "localhost"), "port_mappings: host_ip 'localhost'"),
    ],
)
def test_a_wrong_port_is_named(mapping: PortMapping, message: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=message):
        of_pod(pod(port_mappings=(mapping,)))


def test_dns_cgroup_and_annotations_are_the_pods_own() -> None:
    told = of_pod(
        pod(dns=DnsConfig(servers=("10.0.0.10",)), cgroup_parent="/kubepods/x", annotations={"a": "b"})
    )
    assert told == {
        "dns": {"servers": ["10.0.0.10"], "searches": [], "options": []},
        "cgroupPath": "/kubepods/x",
        "io.kubernetes.cri.pod-annotations": {"a": "b"},
    }


def test_ranges_give_one_address_each() -> None:
    assert of_node([]) == {}
    assert of_node(["10.1.0.0/24", "fd00::/64"]) == {
        "ipRanges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]
    }


def test_arguments_are_those_of_containerd() -> None:
    assert pod_args("abc", pod()) == (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u-1"
    )
    assert generic_args("abc") == "IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID=abc"


@pytest.mark.parametrize("field", ["name", "uid", "namespace"])
@pytest.mark.parametrize("value", ["a;K8S_POD_NAMESPACE=kube-system", "a=b", "a\0", "a\n"])
def test_no_name_can_bring_an_argument_of_its_own(field: str, value: str) -> None:
    metadata = SandboxMetadata(**({"name": "web"} | {field: value}))  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument, match=rf"config\.metadata\.{field}"):
        pod_args("abc", SandboxConfig(metadata=metadata))
