from __future__ import annotations

import re
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from phantom_cri.errors import ConfigError
from phantom_cri.telemetry.metrics import BUCKETS, Metrics, serve

PAGE = Path(__file__).parents[3] / "docs/metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
SUFFIXES = {"counter": "_total", "info": "_info"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("0.1.0")


def test_the_page_lists_every_metric_and_no_other(metrics: Metrics) -> None:
    written = {name: kind for name, kind, _ in ROW.findall(PAGE.read_text())}
    registered = {
        family.name + SUFFIXES.get(family.type, ""): family.type for family in metrics.registry.collect()
    }
    assert written == registered


def test_the_page_names_the_labels(metrics: Metrics) -> None:
    use_all(metrics)
    written = {name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels in ROW.findall(PAGE.read_text())}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                name = family.name + SUFFIXES.get(family.type, "")
                assert set(sample.labels) - {"le"} == written[name], name


def use_all(metrics: Metrics) -> None:
    metrics.rpc_done("Version", "INTERNAL", 0.001)
    metrics.pod_stage("claim", "warm", 0.0003)
    metrics.pool_claim("default", "hit")
    metrics.cold_start("empty")
    metrics.fragment_retired("default", "age")
    metrics.pool_fragments("default", {"warm": 3})
    metrics.sandboxes({"ready": 2})
    metrics.containers({"running": 4})
    metrics.policy_loaded("strict", "12ab", True)
    metrics.policy_containers({"strict": 5, "default": 1})
    metrics.image_pull_began()
    metrics.image_bytes_pulled(1000)
    metrics.image_pulled("ok", 1.5)
    metrics.session_opened("exec")
    metrics.session_closed("attach")
    metrics.port_forwarded("UNAVAILABLE")


def test_numbers_arrive(metrics: Metrics) -> None:
    for _ in range(2):
        use_all(metrics)
    value = metrics.registry.get_sample_value
    assert value("phantom_rpc_seconds_count", {"method": "Version"}) == 2
    assert value("phantom_rpc_errors_total", {"method": "Version", "code": "INTERNAL"}) == 2
    claim = {"stage": "claim", "start": "warm"}
    assert value("phantom_pod_start_seconds_bucket", {**claim, "le": "0.0002"}) == 0
    assert value("phantom_pod_start_seconds_bucket", {**claim, "le": "0.0005"}) == 2
    assert value("phantom_pool_claims_total", {"pool": "default", "result": "hit"}) == 2
    assert value("phantom_pool_cold_starts_total", {"reason": "empty"}) == 2
    assert value("phantom_pool_retired_total", {"pool": "default", "reason": "age"}) == 2
    assert value("phantom_pool_fragments", {"pool": "default", "state": "warm"}) == 3
    assert value("phantom_sandboxes", {"state": "ready"}) == 2
    assert value("phantom_containers", {"state": "running"}) == 4
    assert value("phantom_policy_info", {"policy": "strict", "digest": "12ab", "default": "true"}) == 1
    assert value("phantom_policy_containers", {"policy": "strict"}) == 5
    assert value("phantom_image_pulls_total", {"result": "ok"}) == 2
    assert value("phantom_image_pull_seconds_sum") == 3
    assert value("phantom_image_pull_bytes_total") == 2000
    assert value("phantom_build_info", {"version": "0.1.0"}) == 1


def test_a_policy_that_nobody_has_any_more_holds_none(metrics: Metrics) -> None:
    metrics.policy_containers({"old": 2, "new": 0})
    metrics.policy_containers({"new": 1})
    value = metrics.registry.get_sample_value
    assert [value("phantom_policy_containers", {"policy": name}) for name in ("old", "new")] == [0, 1]


def test_a_success_is_no_error(metrics: Metrics) -> None:
    metrics.rpc_done("Version", "OK", 0.001)
    assert (
        metrics.registry.get_sample_value("phantom_rpc_errors_total", {"method": "Version", "code": "OK"})
        is None
    )


def test_buckets_rise_from_a_tenth_of_a_millisecond_to_half_a_minute() -> None:
    assert list(BUCKETS) == sorted(set(BUCKETS)) and (BUCKETS[0], BUCKETS[-1]) == (0.0001, 30.0)


def test_two_daemons_count_apart(metrics: Metrics) -> None:
    other = Metrics()
    other.cold_start("empty")
    assert metrics.registry.get_sample_value("phantom_pool_cold_starts_total", {"reason": "empty"}) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "", "[::1]"])
def test_the_page_is_served_until_closed(metrics: Metrics, host: str) -> None:
    if host == "[::1]" and not has_ipv6():
        pytest.skip("no IPv6 loopback")
    threads = threading.active_count()
    server = serve(metrics, f"{host}:0")
    url = f"http://{host or '127.0.0.1'}:{server.port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert b'phantom_build_info{version="0.1.0"} 1.0' in answer.read()
    server.close()
    assert threading.active_count() == threads
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=5)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("address", ["9100", "host:", ":x", "127.0.0.1:70000", "127.0.0.1:-1", ""])
def test_a_bad_address_is_refused(metrics: Metrics, address: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(address))):
        serve(metrics, address)


def test_a_taken_port_is_refused_by_name(metrics: Metrics) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"cannot listen on {address}"):
            serve(metrics, address)
