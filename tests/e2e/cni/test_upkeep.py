"""A configuration that comes, goes and breaks; plugins that do not do as they should; daemons that die."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import grpc
import pytest

from harness.daemon import free_port
from harness.host import pids
from harness.reboot import go_down
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.cni_plugins import Plugins
from tests.e2e.cni.conftest import NodeMaker
from tests.e2e.cni.node import CniNode
from tests.e2e.lifecycle.client import Cri, Pod, refusal

pytestmark = pytest.mark.root

NOTHING = {"addresses": 0, "attachments": 0, "links": 0, "rules": 0}


def condition(cri: Cri) -> pb.RuntimeCondition:
    status = cri.runtime.Status(pb.StatusRequest()).status
    found: pb.RuntimeCondition = next(one for one in status.conditions if one.type == "NetworkReady")
    return found


def pod_of(cri: Cri, node: CniNode, **fields: object) -> Pod:
    return cri.pod(node.daemon.folder / "logs", **fields)


def host_network() -> pb.LinuxPodSandboxConfig:
    options = pb.NamespaceOption(network=pb.NODE)
    return pb.LinuxPodSandboxConfig(
        security_context=pb.LinuxSandboxSecurityContext(namespace_options=options)
    )


def test_a_configuration_that_comes_and_goes_needs_no_restart(make_node: NodeMaker) -> None:
    node = make_node()
    node.daemon.start()
    cri = node.cri()
    cri.wait_pools_full()  # of namespaces without network: they wait for it too
    found = condition(cri)
    assert (found.status, found.reason) == (False, "NetworkPluginNotReady")
    assert "cni plugin not initialized: no network config found in" in found.message
    code, message = refusal(lambda: pod_of(cri, node).run_sandbox())
    assert code == grpc.StatusCode.FAILED_PRECONDITION and "cni plugin not initialized" in message
    shares = pod_of(cri, node, linux=host_network()).run_sandbox()
    assert shares.ip == ""

    path = node.configure([node.bridge()])
    assert condition(cri).status
    pod = pod_of(cri, node).run_sandbox()
    assert pod.ip in node.addresses()

    path.write_text("{")
    found = condition(cri)
    assert found.status and "stays in use unchanged" in found.message
    more = pod_of(cri, node).run_sandbox()
    assert more.ip in node.addresses()

    path.unlink()
    assert not condition(cri).status
    assert refusal(lambda: pod_of(cri, node).run_sandbox())[0] == grpc.StatusCode.FAILED_PRECONDITION
    ips = {pod.ip, more.ip}
    pod.stop()
    more.remove()
    assert not ips & node.addresses(), "pods are taken off a network whose configuration is gone"
    cri.remove_pods()
    node.daemon.stop()
    assert node.traces() == NOTHING


def test_pool_members_of_an_older_configuration_are_attached_anew(make_node: NodeMaker) -> None:
    node = make_node()
    node.configure([node.bridge()])
    node.daemon.start()
    cri = node.cri()
    cri.wait_pools_full()
    ipam = node.bridge()["ipam"] | {"ranges": [[{"subnet": "10.127.3.0/24"}]]}
    node.configure([node.bridge(ipam=ipam, isGateway=False)])
    pod = pod_of(cri, node).run_sandbox()
    assert pod.ip.startswith("10.127.3."), "not the address it was born with"
    pod.remove()
    node.daemon.stop()
    assert node.traces() == NOTHING


def test_a_crash_at_any_moment_leaks_no_address(make_node: NodeMaker) -> None:
    """Pods that live keep their network; pool members, pods that died meanwhile and half-made ones do not."""
    node = make_node(pool=3)
    node.configure(node.chain())
    node.daemon.start()
    cri = node.cri()
    cri.wait_pools_full()
    lives, dies = pod_of(cri, node).run_sandbox(), pod_of(cri, node).run_sandbox()
    cri.runtime.RunPodSandbox.future(pb.RunPodSandboxRequest(config=pod_of(cri, node).config))
    before = lives.status.network
    node.daemon.kill()
    kill_fragment(dies.id)
    node.daemon.start()
    cri.wait_served()
    assert lives.status.network == before
    assert lives.status.state == pb.SANDBOX_READY and dies.status.state == pb.SANDBOX_NOTREADY
    others = [pod for pod in cri.pods() if pod not in (lives.id, dies.id)]
    cri.wait_pools_full()
    held = 2 * (1 + 3 + len(others))
    wait_until(lambda: len(node.addresses()) == held, f"{held} addresses: {node.traces()}")
    cri.remove_pods()
    node.daemon.stop()
    wait_until(lambda: node.traces()["links"] == 0, "the links to go")
    # the one whose namespace was gone before anybody could clean up in it has left the plugin's own rules
    assert {**node.traces(), "rules": 0} == NOTHING


def kill_fragment(sandbox_id: str) -> None:
    title = f"fragment {sandbox_id[:12]}".encode()
    for pid in pids():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if title in command:
            os.kill(pid, signal.SIGKILL)
            namespace = Path(f"/proc/{pid}/ns/net")
            wait_until(partial(is_gone, namespace), "the fragment to go")
            return
    raise AssertionError(f"no process {title!r}")


def is_gone(path: Path) -> bool:
    return not path.exists()


def test_a_plugin_that_outlives_a_killed_daemon_comes_too_late(make_node: NodeMaker) -> None:
    """It would attach a pod of which nobody knows any more."""
    node = make_node(pool=0)
    late = node.bin_dir / "late"
    late.write_text('#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] && sleep 5\nexec /usr/lib/cni/bridge\n')
    late.chmod(0o755)
    node.configure([node.bridge(type="late")])
    node.daemon.start()
    cri = node.cri()
    call = cri.runtime.RunPodSandbox.future(pb.RunPodSandboxRequest(config=pod_of(cri, node).config))
    plugins = wait_until(lambda: running(f"{late}"), "the plugin to run")
    node.daemon.kill()
    assert call.exception() is not None
    assert running(f"{late}") == plugins, "it goes on without the daemon"
    node.daemon.start()
    cri.wait_served()
    assert not running(f"{late}")
    assert node.traces() == NOTHING and not cri.pods()


def test_what_a_dead_fragment_had_is_given_back_inside_its_namespace(node: CniNode) -> None:
    """Rules too: the daemon holds the namespace until the plugins are done."""
    cri = node.cri()
    cri.wait_pools_full()
    pod = pod_of(cri, node).run_sandbox()
    kill_fragment(pod.id)
    pod.remove()
    node.daemon.stop()
    wait_until(lambda: node.traces() == NOTHING, f"nothing to be left: {node.traces()}")


def test_a_reboot_gives_addresses_back(node: CniNode) -> None:
    """host-local keeps them on disk, and nobody else would ever free those of pods that have ended."""
    cri = node.cri()
    cri.wait_pools_full()
    ports = [pb.PortMapping(container_port=80, host_port=free_port())]
    pod = pod_of(cri, node, port_mappings=ports).run_sandbox()
    time.sleep(0.5)  # its record is on disk
    held = node.traces()["addresses"]
    go_down(node.daemon)
    assert node.traces()["addresses"] == held
    node.daemon.start()
    cri.wait_served()
    cri.wait_pools_full()
    assert pod.status.state == pb.SANDBOX_NOTREADY
    assert len(node.addresses()) == held - 2, "IPv4 and IPv6 of the pod; the pool's are new"
    assert not any(pod.id in path.name for path in node.attachments())
    again = pod_of(cri, node, port_mappings=ports).run_sandbox()
    for one in (pod, again):
        one.stop()
        one.remove()
    node.daemon.stop()
    wait_until(lambda: not node.addresses() and not node.attachments(), "nothing to be left")


def test_a_configuration_that_is_gone_when_the_daemon_comes_back(node: CniNode) -> None:
    cri = node.cri()
    pod = pod_of(cri, node).run_sandbox()
    node.daemon.kill()
    for path in node.conf_dir.iterdir():
        path.unlink()
    node.daemon.start()
    cri.wait_served()
    assert pod.status.state == pb.SANDBOX_READY
    pod.stop()
    assert not node.addresses()
    node.daemon.stop()
    wait_until(lambda: node.traces() == NOTHING, f"nothing to be left: {node.traces()}")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (
            """print('{"code": 110, "msg": "no more room", "details": "on this node"}'); sys.exit(1)""",
            grpc.StatusCode.INTERNAL,
            "no more room; on this node (code 110)",
        ),
        (
            """print('{"code": 11, "msg": "later"}'); sys.exit(1)""",
            grpc.StatusCode.UNAVAILABLE,
            "later (code 11)",
        ),
        ("sys.exit('Traceback: \\x1b[31m oops')", grpc.StatusCode.INTERNAL, "exit code 1: 'Traceback: "),
        ("os.kill(os.getpid(), 11)", grpc.StatusCode.INTERNAL, "signal 11"),
        ("print('no JSON at all')", grpc.StatusCode.INTERNAL, "'no JSON at all' is not a valid result"),
        ("print('[' * 100000)", grpc.StatusCode.INTERNAL, "is not a valid result"),
        (
            "[sys.stdout.write('x' * 65536) for _ in range(100)]",
            grpc.StatusCode.INTERNAL,
            "wrote more than 1048576 bytes and was killed",
        ),
        ("print('{}')", grpc.StatusCode.INTERNAL, "eth0 got no address"),
        (
            "os.fork() or time.sleep(100); time.sleep(100)",
            grpc.StatusCode.UNAVAILABLE,
            "took longer than 1 s and was killed",
        ),
    ],
)
def test_a_plugin_that_fails_is_named_and_what_others_made_goes(
    make_node: NodeMaker, body: str, code: grpc.StatusCode, words: str
) -> None:
    node = make_node(pool=1, timeout="1s")
    broken = Plugins(node.daemon.folder).make("broken", ADD=body)
    node.configure([node.bridge(), broken])
    node.daemon.start()
    cri = node.cri()
    refused, message = refusal(lambda: pod_of(cri, node).run_sandbox())
    assert refused == code
    assert words in message
    if "eth0 got" not in words:
        assert (
            f"CNI ADD by plugin 'broken' of network '{node.name}' ({node.conf_dir}/10-net.conflist)"
            in message
        )
    assert len(message) < 1000 and message.isprintable()
    assert not cri.pods()
    node.daemon.stop()
    wait_until(lambda: node.traces() == NOTHING, f"nothing to be left: {node.traces()}")
    assert not running("broken")


def running(name: str) -> list[int]:
    found = []
    for pid in pids():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if name.encode() in command:
            found.append(pid)
    return found


def test_a_delete_that_fails_is_tried_again(make_node: NodeMaker) -> None:
    node = make_node(pool=0)
    plugins = Plugins(node.daemon.folder)
    stubborn = plugins.make("stubborn", DEL="sys.exit('not now')")
    node.configure([node.bridge(), stubborn])
    node.daemon.start()
    cri = node.cri()
    pod = pod_of(cri, node).run_sandbox()
    code, message = refusal(pod.stop)
    assert code == grpc.StatusCode.INTERNAL and "CNI DEL by plugin 'stubborn'" in message
    assert "not now" in message
    assert pod.status.state == pb.SANDBOX_NOTREADY and node.addresses()
    plugins.make("stubborn")
    pod.remove()
    assert node.traces() == NOTHING


def test_a_client_that_leaves_takes_its_plugins_along(make_node: NodeMaker) -> None:
    node = make_node(pool=0)
    plugins = Plugins(node.daemon.folder)
    node.configure([node.bridge(), plugins.make("slow", ADD="time.sleep(60)")])
    node.daemon.start()
    cri = node.cri()
    call = cri.runtime.RunPodSandbox.future(pb.RunPodSandboxRequest(config=pod_of(cri, node).config))
    wait_until(lambda: plugins.calls("ADD"), "the slow plugin to run")
    assert node.addresses()
    began = time.monotonic()
    call.cancel()
    wait_until(lambda: node.traces() == NOTHING, "the pod's network to go")
    assert time.monotonic() - began < 10
    assert not running(f"{plugins.bin_dir}/slow")


def test_pod_ranges_of_the_kubelet_reach_the_plugins(make_node: NodeMaker) -> None:
    node = make_node(pool=1)
    # not a bridge: one that loses its only port before it had an address has no MAC, and the plugin gives up
    pair = {"type": "ptp", "capabilities": {"ipRanges": True}, "ipam": node.bridge()["ipam"]}
    del pair["ipam"]["ranges"]
    node.configure([pair])
    node.daemon.start()
    cri = node.cri()
    for wrong in ("10.1.0.0", "10.1.0.1/24", "10.1.0.0/24,10.2.0.0/24", "fd00::/64,", "x"):
        code, message = refusal(partial(tell_ranges, cri, wrong))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "runtime_config.network_config.pod_cidr" in message and wrong in message
    assert refusal(lambda: pod_of(cri, node).run_sandbox())[0] == grpc.StatusCode.INTERNAL
    tell_ranges(cri, "")
    tell_ranges(cri, "10.126.4.0/24,fd70:7e04::/64")
    assert pod_of(cri, node).run_sandbox().ip.startswith("10.126.4.")
    node.daemon.restart()
    cri.wait_served()
    pod = pod_of(cri, node).run_sandbox()
    assert pod.ip.startswith("10.126.4.") and pod.status.network.additional_ips[0].ip.startswith(
        "fd70:7e04::"
    )
    cri.remove_pods()
    node.daemon.stop()
    wait_until(lambda: node.traces() == NOTHING, f"nothing to be left: {node.traces()}")


def tell_ranges(cri: Cri, text: str) -> None:
    network = pb.NetworkConfig(pod_cidr=text)
    cri.runtime.UpdateRuntimeConfig(
        pb.UpdateRuntimeConfigRequest(runtime_config=pb.RuntimeConfig(network_config=network))
    )
