"""Warm fragments for containerd's pods: what starts warm, what cannot, and that nobody sees a difference."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.crictl import Crictl
from harness.ctr import Ctr
from harness.daemon import Daemon
from harness.host import processes_below
from harness.waiting import wait_until
from tests.e2e.shim.test_crictl import SECURITY, container_config, pod_config

pytestmark = pytest.mark.root

SIZE = 2


@pytest.fixture(scope="module")
def pool_size() -> int:
    return SIZE


def cold_starts(phantom: Daemon) -> dict[str, int]:
    found = re.findall(r'cold_starts_total\{reason="shim_(.*)"\} (\d+)', phantom.metrics())
    return {reason: int(count) for reason, count in found}


def wait_for_fragments(phantom: Daemon, number: int) -> None:
    wait_until(
        lambda: len(processes_below(phantom.state) - {phantom.running.pid}) == number, f"{number} fragments"
    )


def test_only_the_first_task_is_cold(ctr: Ctr, phantom: Daemon, image: str) -> None:
    assert "lo" in ctr.run_task(image, "first", "ip", "-o", "link")
    wait_for_fragments(phantom, SIZE)
    assert cold_starts(phantom) == {"pool_empty": 1}
    shown = ctr.run_task(
        *(image, "second", "sh", "-c", "hostname; ip -o link show up | cut -d: -f2"),
        flags=("--hostname", "named"),
    )
    assert shown.split() == ["named", "lo"]
    assert cold_starts(phantom) == {"pool_empty": 1}
    wait_for_fragments(phantom, SIZE)


def test_a_pod_of_cri_joins_its_network(crictl: Crictl, phantom: Daemon, image: str, tmp_path: Path) -> None:
    before = cold_starts(phantom).get("pool_empty", 0)
    for name, cold in (("cold", 1), ("warm", 1)):
        config = pod_config(name, tmp_path) | {"hostname": name}
        config["linux"]["sysctls"] = {"net.ipv4.ip_default_ttl": "77", "kernel.shm_rmid_forced": "1"}
        pod = crictl.run_pod(config, "phantom")
        try:
            container = crictl.create(pod, container_config(image), config)
            crictl.run("start", container)
            script = "hostname; cat /proc/sys/net/ipv4/ip_default_ttl; ip -4 -o addr show eth0 | wc -l"
            assert crictl.run("exec", container, "sh", "-c", script).split() == [name, "77", "1"]
        finally:
            crictl.run("rmp", "--force", pod)
        assert cold_starts(phantom)["pool_empty"] == before + cold
        wait_for_fragments(phantom, 2 * SIZE if before else SIZE)
    assert Path("/proc/sys/net/ipv4/ip_default_ttl").read_text() != "77\n"


def test_what_cannot_be_warm_is_counted(crictl: Crictl, phantom: Daemon, tmp_path: Path) -> None:
    pod = crictl.run_pod(pod_config("hosts", tmp_path, **SECURITY["host-all"]), "phantom")
    crictl.run("rmp", "--force", pod)
    assert cold_starts(phantom)["host_pid+host_ipc+host_uts"] == 1


def test_a_warm_started_task_outlives_the_daemon_and_idle_fragments_do_not(
    ctr: Ctr, phantom: Daemon, image: str
) -> None:
    ctr.start(image, "on", "sleep", "1000")
    try:
        phantom.kill()
        phantom.start()
        assert ctr.states()["on"][1] == "RUNNING"
        wait_for_fragments(phantom, 1)
        assert ctr.exec("on", "e", "echo", "fine") == "fine\n"
    finally:
        ctr.remove("on")
    wait_for_fragments(phantom, 0)
