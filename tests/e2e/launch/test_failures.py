"""What cannot be done is said in the words of the plan, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from phantom_cri import fragments, plans
from phantom_cri.errors import Internal, InvalidArgument
from phantom_cri.fragments import LaunchError
from phantom_cri.fragments.spawn import spawn_here
from phantom_cri.model import CompiledPolicy
from phantom_cri.plans import OverlayRoot, constants, ops
from phantom_cri.plans.plan import Plan
from tests.e2e.launch.pod import Pod, config, mount, open_fds, text_of

pytestmark = pytest.mark.root


async def refused(pod: Pod, container_id: str, made: plans.ContainerSpec) -> LaunchError:
    with pytest.raises(LaunchError) as found:
        await pod.start(container_id, made)
    return found.value


async def test_a_target_below_a_file(pod: Pod, tmp_path: Path) -> None:
    asked = config(mounts=(mount(str(tmp_path), "/etc/passwd/x"),))
    error = await refused(pod, "a", pod.request("a", asked))
    assert (
        str(error)
        == f"op {error.op_index}, bind {tmp_path} on /etc/passwd/x: ENOTDIR (Not a directory): target"
    )
    assert (error.stage, error.number) == ("op", 20)


async def test_a_folder_on_a_file(pod: Pod, tmp_path: Path) -> None:
    asked = config(mounts=(mount(str(tmp_path), "/etc/passwd"),))
    error = await refused(pod, "a", pod.request("a", asked))
    assert f"bind {tmp_path} on /etc/passwd: EINVAL (Invalid argument): a folder cannot be" in str(error)


async def test_a_missing_layer(pod: Pod, tmp_path: Path) -> None:
    layer = pod.folder / "a"
    root = OverlayRoot((str(tmp_path / "none"),), str(layer / "upper"), str(layer / "work"))
    error = await refused(pod, "a", pod.request("a", config(), root=root))
    assert f"overlay {pod.folder}/a/upper over {tmp_path}/none: ENOENT (No such file or directory)" in str(
        error
    )


async def test_a_working_folder_that_is_a_file(pod: Pod) -> None:
    error = await refused(pod, "a", pod.request("a", config(working_dir="/etc/passwd")))
    assert "make directory /etc/passwd 0755 0:0: ENOTDIR" in str(error)


async def test_a_filter_that_is_none(pod: Pod) -> None:
    policy = CompiledPolicy(seccomp=b"\xff" * 16)
    error = await refused(pod, "a", pod.request("a", config(), policy=policy))
    assert "load a seccomp filter of 2 instructions: EINVAL" in str(error)


async def test_a_plan_that_is_none(pod: Pod) -> None:
    with pytest.raises(LaunchError, match=r"start a: decode: EINVAL"):
        await pod.fragment.start("a", Plan((ops.Attach(9, "/x"),), kind=constants.KIND_CONTAINER))
    with pytest.raises(LaunchError, match=r"adopt: decode: E"):
        await pod.fragment.adopt(Plan((ops.Hostname("x"),), kind=constants.KIND_CONTAINER))


async def test_nothing_is_left_of_a_failed_start(pod: Pod, tmp_path: Path) -> None:
    await pod.fragment.list_processes()  # what came with the request before is closed by now
    before, fds = text_of("/proc/self/mounts"), sorted(open_fds())
    inside = len(os.listdir(f"/proc/{pod.spawned.process.pid}/fd"))
    for index in range(5):
        asked = config(mounts=(mount(str(tmp_path), "/data"), mount(str(tmp_path), "/etc/passwd/x")))
        await refused(pod, str(index), pod.request(str(index), asked))
    assert await pod.fragment.list_processes() == []
    assert text_of("/proc/self/mounts") == before
    assert sorted(open_fds()) == fds
    assert len(os.listdir(f"/proc/{pod.spawned.process.pid}/fd")) == inside
    children = text_of(f"/proc/{pod.spawned.process.pid}/task/{pod.spawned.process.pid}/children")
    assert children == ""


# ---- identity


async def test_sysctls_belong_to_the_pod(pod: Pod) -> None:
    wished = {"net/core/somaxconn": "77", "kernel/shm_rmid_forced": "1", "fs/mqueue/msg_max": "99"}
    before = text_of("/proc/sys/net/core/somaxconn")
    await pod.fragment.adopt(plans.claim_plan("other", wished))
    files = "net/core/somaxconn kernel/shm_rmid_forced fs/mqueue/msg_max"
    _, lines = await pod.run("a", config(f"cd /proc/sys; cat {files}; hostname"))
    assert lines == ["77", "1", "99", "other"]
    assert text_of("/proc/sys/net/core/somaxconn") == before


async def test_ports_below_1024_are_for_all(pod: Pod) -> None:
    await pod.fragment.adopt(plans.spawn_plan(own_network=True))
    _, lines = await pod.run("a", config("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"))
    assert lines == ["0"]


async def test_identities_that_the_kernel_refuses(pod: Pod) -> None:
    with pytest.raises(InvalidArgument, match=r"sysctls: net/none: this kernel has none of that name"):
        await pod.fragment.adopt(plans.claim_plan("x", {"net/none": "1"}))
    with pytest.raises(InvalidArgument, match=r"sysctls: net/core/somaxconn: the kernel refuses .* 'many'"):
        await pod.fragment.adopt(plans.claim_plan(None, {"net/core/somaxconn": "many"}))
    with pytest.raises(LaunchError, match=r"op 1, wire the network, 16 bytes of rtnetlink: EINVAL"):
        await pod.fragment.adopt(plans.spawn_plan(bytes(16)))


async def test_a_fragment_is_claimed_once(pod: Pod) -> None:
    with pytest.raises(LaunchError, match="adopt: request: EBUSY"):
        await pod.fragment.adopt(plans.claim_plan("again", {}), claim=True)


# ---- birth


def test_a_birth_that_fails_leaves_nothing(tmp_path: Path) -> None:
    before = sorted(open_fds())
    folder = tmp_path / "pod"
    with pytest.raises(Internal, match=f"spawn a fragment in {folder}: EINVAL"):
        spawn_here(str(folder), 1 << 60)
    with pytest.raises(Internal, match="EBADF"):
        spawn_here(str(folder), plans.CLONE_NEWNS, cgroup_fd=os.open("/dev/null", os.O_RDONLY))
    assert os.listdir(folder) == []
    (tmp_path / "file").touch()
    with pytest.raises(Internal, match=r"open .*/file/pod: ENOTDIR"):
        spawn_here(str(tmp_path / "file/pod"), plans.CLONE_NEWNS)
    assert sorted(open_fds()) == sorted([*before, "/dev/null"])


async def test_a_folder_with_a_long_name(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) / ("y" * 64)
    folder.parent.mkdir()
    spawned = await fragments.spawn(str(folder), plans.CLONE_NEWNS)
    fragment = fragments.FragmentClient.connect(str(folder / fragments.SOCKET), lambda event: None)
    assert (await fragment.hello()).phase == fragments.Phase.WARM
    await fragment.shutdown()
    fragment.close()
    ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    fragments.watch_death(spawned.pidfd, ended.set_result)
    async with asyncio.timeout(5):
        assert await ended == 0
    os.close(spawned.pidfd)


async def test_sources_that_cannot_be(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    error = await refused(pod, "a", pod.request("a", config(mounts=(mount(str(tmp_path / "file/x"), "/v"),))))
    assert f"open {tmp_path}/file/x with its submounts, made if missing: ENOTDIR (Not a directory)" in str(
        error
    )
    error = await refused(pod, "b", pod.request("b", config(mounts=(mount(str(tmp_path / "link"), "/v"),))))
    assert f"open {tmp_path}/link with its submounts, made if missing: ENOENT" in str(error)
