"""The driver over plugins that record what they are asked; their namespace is the test's own, unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from phantom_cri import codec, errors, native
from phantom_cri.config import CniConfig, Prewire
from phantom_cri.model import PortMapping, SandboxConfig, SandboxMetadata
from phantom_cri.network.cni import driver
from phantom_cri.network.cni.attachments import Cache
from phantom_cri.network.cni.driver import CniNetwork
from tests.cni_plugins import RESULT, Plugins

NETNS = f"/proc/{os.getpid()}/ns/net"
POD = SandboxConfig(metadata=SandboxMetadata("web", "u-1", "shop"))
IPS = ("192.0.2.1", "192.0.2.7", "2001:db8::7")
PORTS = SandboxConfig(metadata=POD.metadata, port_mappings=(PortMapping("tcp", 80, 8080),))
TELLS_PORTS = {"capabilities": {"portMappings": True}}


class Bench:
    """A folder with plugins and their configuration, and the daemons' drivers, one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plugins = Plugins(folder)
        self.conf_dir, self.cache_dir = folder / "net.d", folder / "cache"
        self.conf_dir.mkdir()
        self.network: CniNetwork

    def configure(self, *plugins: Mapping[str, Any], **fields: Any) -> Path:
        path = self.conf_dir / "net.conflist"
        half = path.with_suffix(".half")
        half.write_text(json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": plugins} | fields))
        half.rename(path)
        return path

    async def start(self, *live: str, prewire: Prewire = "always") -> CniNetwork:
        conf_dir, bin_dirs = str(self.conf_dir), (str(self.plugins.bin_dir),)
        config = CniConfig(conf_dir, bin_dirs, str(self.cache_dir), prewire, "5s")
        self.network = CniNetwork(config, self.folder, self.folder / "state")
        await self.network.start(dict.fromkeys(live, IPS))
        return self.network

    async def crash(self) -> None:
        """What `kill -9` does to a driver, as far as it shows outside: its tasks and descriptors are gone."""
        await self.network.close()

    def cached(self) -> list[str]:
        return sorted(os.listdir(self.cache_dir))


def open_files() -> Counter[str]:
    """What our descriptors lead to, without numbers."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that the folder was read by
            found[os.readlink(f"/proc/self/fd/{number}").partition(":[")[0]] += 1
    return found


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    before = open_files()
    made = Bench(tmp_path)
    yield made
    await made.network.close()
    assert open_files() - before == Counter()


async def test_plugins_are_asked_in_order_and_undone_backwards(bench: Bench) -> None:
    changed = RESULT | {"ips": [{"address": "192.0.2.9/24"}]}
    bench.configure(
        bench.plugins.make("one") | {"x": {"y": [1]}},
        bench.plugins.make("two", ADD=f"print(json.dumps({changed!r}))"),
        bench.plugins.make("three"),
    )
    network = await bench.start()
    attachment = await network.attach("pod1", NETNS, ahead=False)
    assert attachment.ips == () and not bench.plugins.calls("ADD")
    assert await network.join("pod1", POD) == ("192.0.2.9",)
    assert bench.plugins.order("ADD") == ["ADD one", "ADD two", "ADD three"]
    one, two, three = bench.plugins.calls("ADD")
    assert one["request"] == {"cniVersion": "1.0.0", "name": "net", "type": "one", "x": {"y": [1]}}
    assert two["request"]["prevResult"] == RESULT and three["request"]["prevResult"] == changed
    for call in (one, two, three):
        assert call["containerid"] == "pod1" and call["netns"] == NETNS and call["ifname"] == "eth0"
        assert call["path"] == str(bench.plugins.bin_dir)
        assert call["args"] == (
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;"
            "K8S_POD_INFRA_CONTAINER_ID=pod1;K8S_POD_UID=u-1"
        )
    assert bench.cached() == ["pod1.json"]
    await network.release("pod1")
    assert bench.plugins.order("DEL") == ["DEL three", "DEL two", "DEL one"]
    for call in bench.plugins.calls("DEL"):
        assert call["request"]["prevResult"] == changed and call["args"] == one["args"]
        assert call["netns"].startswith(f"/proc/{os.getpid()}/fd/")
    assert bench.cached() == []
    await network.release("pod1")
    assert len(bench.plugins.calls("DEL")) == 3


async def test_only_a_plugin_that_declares_a_capability_is_told(bench: Bench) -> None:
    bench.configure(
        bench.plugins.make("one"),
        bench.plugins.make("two") | TELLS_PORTS,
        bench.plugins.make("three") | {"capabilities": {"bandwidth": True, "portMappings": False}},
        prewire="never",
    )
    network = await bench.start(prewire="never")
    await network.attach("pod1", NETNS, ahead=True)
    assert not bench.plugins.calls("ADD"), "never means never"
    await network.join("pod1", PORTS)
    one, two, three = (call["request"] for call in bench.plugins.calls("ADD"))
    assert "runtimeConfig" not in one and "runtimeConfig" not in three and "capabilities" not in two
    assert two["runtimeConfig"]["portMappings"][0]["hostPort"] == 8080
    await network.release("pod1")
    assert bench.plugins.calls("DEL")[1]["request"]["runtimeConfig"] == two["runtimeConfig"]


async def test_a_member_attached_ahead_asks_nobody_when_it_is_claimed(bench: Bench) -> None:
    bench.configure(bench.plugins.make("one"), bench.plugins.make("two") | TELLS_PORTS)
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    assert bench.plugins.order("ADD") == ["ADD one", "ADD two"]
    assert bench.plugins.calls("ADD")[0]["args"] == "IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID=pod1"
    bench.plugins.forget()
    assert await network.join("pod1", POD) == IPS
    assert bench.plugins.calls() == []


async def test_a_claim_that_says_more_goes_back_to_the_first_plugin_that_listens(bench: Bench) -> None:
    listens = bench.plugins.make("two") | TELLS_PORTS
    bench.configure(bench.plugins.make("one"), listens, bench.plugins.make("three"))
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    bench.plugins.forget()
    assert await network.join("pod1", PORTS) == IPS
    assert bench.plugins.order() == ["DEL three", "DEL two", "ADD two", "ADD three"]
    assert bench.plugins.calls("ADD")[0]["request"]["prevResult"] == RESULT
    bench.plugins.forget()
    await network.release("pod1")
    assert bench.plugins.order() == ["DEL three", "DEL two", "DEL one"]
    assert "portMappings" in bench.plugins.calls()[1]["request"]["runtimeConfig"]


async def test_a_member_of_another_configuration_is_attached_anew(bench: Bench) -> None:
    bench.configure(bench.plugins.make("one"))
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    await network.attach("pod2", NETNS, ahead=True)
    bench.configure(bench.plugins.make("one"))  # another file, the same text
    bench.plugins.forget()
    await network.join("pod1", POD)
    assert bench.plugins.calls() == []
    bench.configure(bench.plugins.make("new"))
    await network.join("pod2", POD)
    assert bench.plugins.order("DEL", "ADD") == ["DEL one", "ADD new"]


@pytest.mark.parametrize("broken", [0, 1])
async def test_after_a_failed_add_all_are_deleted(bench: Bench, broken: int) -> None:
    path = bench.configure(bench.plugins.make("one"), bench.plugins.make("two"))
    named = ("one", "two")[broken]
    bench.plugins.make(named, ADD="""print('{"code": 7, "msg": "bad mtu"}'); sys.exit(1)""")
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=False)
    with pytest.raises(errors.Internal) as refusal:
        await network.join("pod1", POD)
    assert str(refusal.value) == (
        f"network: CNI ADD by plugin '{named}' of network 'net' ({path}): bad mtu (code 7)"
    )
    assert bench.plugins.order("DEL") == ["DEL two", "DEL one"]
    assert all("prevResult" not in call["request"] for call in bench.plugins.calls("DEL"))
    assert bench.cached() == []
    bench.plugins.make(named)
    assert await network.join("pod1", POD) == IPS, "and can be joined when the plugin is mended"


async def test_a_namespace_that_cannot_be_attached_ahead_is_kept_for_a_better_day(bench: Bench) -> None:
    bench.configure(bench.plugins.make("one", ADD="sys.exit(1)"))
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    assert bench.plugins.order("DEL") == ["DEL one"] and bench.cached() == []
    bench.plugins.make("one")
    assert await network.join("pod1", POD) == IPS


async def test_a_missing_plugin_is_named_with_the_folders_that_lack_it(bench: Bench) -> None:
    bench.configure({"type": "absent"})
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    with pytest.raises(
        errors.FailedPrecondition, match=rf"CNI plugin 'absent' is not in {bench.plugins.bin_dir}"
    ):
        await network.join("pod1", POD)
    ready, reason, message = await network.ready()
    assert (ready, reason) == (False, "NetworkPluginNotReady") and "'absent' is not in" in message


async def test_a_delete_that_fails_keeps_its_record_and_is_repeated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_RETRY_S", (0.01, 0.05))
    bench.configure(bench.plugins.make("one"), bench.plugins.make("two", DEL="sys.exit('busy')"))
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    with pytest.raises(errors.Internal, match=r"CNI DEL by plugin 'two' .*busy"):
        await network.release("pod1")
    assert "DEL one" not in bench.plugins.order("DEL"), "the chain stops where it fails (section 3)"
    assert bench.cached() == ["pod1.json"]
    bench.plugins.make("two")
    async with asyncio.timeout(5):
        while bench.cached():  # noqa: ASYNC110 (a file has no event)
            await asyncio.sleep(0.01)
    assert "DEL one" in bench.plugins.order("DEL")


# --- after a crash --------------------------------------------------------


async def test_what_has_no_pod_any_more_is_deleted_with_the_configuration_it_had(bench: Bench) -> None:
    path = bench.configure(bench.plugins.make("one") | {"old": True})
    network = await bench.start()
    for pod in ("lives", "dies"):
        await network.attach(pod, NETNS, ahead=True)
    await bench.crash()
    path.unlink()
    bench.plugins.forget()
    network = await bench.start("lives")
    (call,) = bench.plugins.calls("DEL")
    assert (
        call["containerid"] == "dies" and call["request"]["old"] and call["request"]["prevResult"] == RESULT
    )
    assert call["netns"].startswith(f"/proc/{os.getpid()}/fd/"), "the namespace is still there"
    assert bench.cached() == ["lives.json"]
    await network.release("lives")
    assert bench.cached() == []


async def test_a_namespace_that_is_gone_is_not_named(bench: Bench) -> None:
    bench.configure(bench.plugins.make("one"))
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    await bench.crash()
    record = bench.cache_dir / "pod1.json"
    record.write_text(
        record.read_text().replace('"netns_id":', '"netns_id":1')
    )  # the pid is another's by now
    await bench.start()
    (call,) = bench.plugins.calls("DEL")
    assert call["netns"] == "" and bench.cached() == []


async def test_a_namespace_of_another_boot_is_not_named(bench: Bench) -> None:
    """Its pid and inode may be a stranger's now, who would lose an eth0."""
    bench.configure(bench.plugins.make("one"))
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    await bench.crash()
    record = bench.cache_dir / "pod1.json"
    text = record.read_text()
    assert native.boot_id() in text
    record.write_text(text.replace(native.boot_id(), "11111111-2222-3333-4444-555555555555"))
    await bench.start()
    (call,) = bench.plugins.calls("DEL")
    assert call["netns"] == "" and bench.cached() == []


async def test_a_crash_in_the_middle_of_add_is_undone(bench: Bench) -> None:
    bench.configure(bench.plugins.make("one"), bench.plugins.make("two", ADD="time.sleep(60)"))
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=False)
    task = asyncio.create_task(network.join("pod1", POD))
    async with asyncio.timeout(5):
        while len(bench.plugins.calls("ADD")) < 2:  # noqa: ASYNC110 (a file has no event)
            await asyncio.sleep(0.01)
    record = (bench.cache_dir / "pod1.json").read_bytes()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.plugins.order("DEL") == ["DEL two", "DEL one"] and bench.cached() == []
    await network.release("pod1")
    await bench.crash()
    (bench.cache_dir / "pod1.json").write_bytes(record)
    bench.plugins.forget()
    await bench.start()
    assert bench.plugins.order("DEL") == ["DEL two", "DEL one"] and bench.cached() == []


async def test_plugins_of_a_killed_daemon_are_ended_before_they_are_undone(bench: Bench) -> None:
    bench.configure(bench.plugins.make("one"))
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    await bench.crash()
    orphans = [
        await asyncio.create_subprocess_exec("sleep", "60", env={**os.environ, "CNI_CONTAINERID": sandbox_id})
        for sandbox_id in ("pod1", "pod11")
    ]
    await bench.start()
    assert await asyncio.wait_for(orphans[0].wait(), 5) == -9
    assert bench.cached() == []
    assert orphans[1].returncode is None, "another's plugin goes on"
    orphans[1].kill()
    await orphans[1].wait()


async def test_records_that_cannot_be_read_are_set_aside_and_half_ones_removed(bench: Bench) -> None:
    bench.cache_dir.mkdir()
    (bench.cache_dir / "a.json").write_text("{")
    (bench.cache_dir / "b.json.1.tmp").write_text("{")
    bench.configure(bench.plugins.make("one"))
    await bench.start()
    assert bench.cached() == ["a.unreadable"]
    await bench.crash()
    await bench.start()
    assert bench.cached() == ["a.unreadable"]


async def test_what_a_later_release_wrote_of_an_attachment_stays(bench: Bench) -> None:
    bench.configure(bench.plugins.make("one"))
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    await bench.crash()
    path = bench.cache_dir / "pod1.json"
    document = json.loads(path.read_bytes()) | {"later": {"x": [1]}}
    path.write_text(json.dumps(document))
    network = await bench.start("pod1")
    assert json.loads(path.read_bytes()) == document
    cache = Cache(bench.cache_dir)
    (attachment,) = cache.read()
    cache.write(codec.replace(attachment, args="K8S_POD_NAME=other"))
    assert json.loads(path.read_bytes()) == document | {"args": "K8S_POD_NAME=other"}
    await network.release("pod1")
    assert bench.cached() == [] and bench.plugins.order("DEL") == ["DEL one"]


@pytest.mark.parametrize("live", [(), ("pod1",)])
async def test_an_attachment_of_a_newer_schema_is_left_as_it_is(
    bench: Bench, live: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither deleted nor taken for garbage: the release that wrote it will know what to undo."""
    bench.configure(bench.plugins.make("one"), cniVersion="1.1.0")
    bench.cache_dir.mkdir()
    path = bench.cache_dir / "pod1.json"
    path.write_text('{"schema": 2, "sandbox_id": {"of": "another kind"}}')
    before = path.read_bytes()
    network = await bench.start(*live)
    assert "pod1.json is ignored and not changed: it has schema 2" in caplog.text
    assert network.features()["attachments"].startswith("off: it has schema 2 of a newer phantom-cri")
    await network.release("pod1")
    assert path.read_bytes() == before
    assert bench.plugins.order("DEL", "GC") == []


async def test_slow_plugins_do_not_keep_the_daemon_from_serving(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_START_PATIENCE_S", 0.1)
    bench.configure(bench.plugins.make("one", DEL="time.sleep(1)"))
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    await bench.crash()
    await bench.start()
    assert bench.cached() == ["pod1.json"]
    async with asyncio.timeout(5):
        while bench.cached():  # noqa: ASYNC110 (a file has no event)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("fields", "collects"),
    [
        ({"cniVersion": "1.1.0"}, True),
        ({"cniVersion": "1.0.0"}, False),
        ({"cniVersion": "1.1.0", "disableGC": True}, False),
    ],
)
async def test_garbage_is_collected_with_the_attachments_that_are_left(
    bench: Bench, fields: dict[str, Any], collects: bool
) -> None:
    complains = bench.plugins.make("one", GC="sys.exit('no')")
    bench.configure(complains, bench.plugins.make("two"), **fields)
    network = await bench.start()
    for pod in ("lives", "dies"):
        await network.attach(pod, NETNS, ahead=True)
    await bench.crash()
    bench.plugins.forget()
    await bench.start("lives")
    assert bench.plugins.order("GC", "DEL")[:2] == ["DEL two", "DEL one"]
    assert bench.plugins.order("GC") == (["GC one", "GC two"] if collects else [])
    for call in bench.plugins.calls("GC"):
        valid = call["request"]["cni.dev/valid-attachments"]
        assert valid == [{"containerID": "lives", "ifname": "eth0"}] and "containerid" not in call


@pytest.mark.parametrize(
    ("fields", "checks"),
    [
        ({"cniVersion": "0.4.0"}, True),
        ({"cniVersion": "0.3.1"}, False),
        ({"cniVersion": "0.4.0", "disableCheck": True}, False),
    ],
)
async def test_what_goes_on_is_checked_and_complaints_are_shown(
    bench: Bench, fields: dict[str, Any], checks: bool
) -> None:
    bench.configure(bench.plugins.make("one", CHECK="sys.exit('no route')"), **fields)
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    await bench.crash()
    network = await bench.start("pod1")
    async with asyncio.timeout(5):
        await network._tasks.wait()
    if not checks:
        assert bench.plugins.calls("CHECK") == [] and network.features()["attachments"] == "on"
        return
    (call,) = bench.plugins.calls("CHECK")
    assert call["netns"] == NETNS and call["request"]["prevResult"] == RESULT
    assert "no route" in network.features()["attachments"]


# --- readiness, versions, ranges ------------------------------------------


async def test_readiness_is_asked_of_plugins_that_can_tell(bench: Bench) -> None:
    bench.configure(bench.plugins.make("one", STATUS="sys.exit('no')"))
    network = await bench.start()
    assert (await network.ready())[0], "no STATUS before 1.1.0"
    refuses = bench.plugins.make("two", STATUS="""print('{"code": 50, "msg": "no agent"}'); sys.exit(1)""")
    bench.configure(bench.plugins.make("one"), refuses, cniVersion="1.1.0")
    ready, reason, message = await network.ready()
    assert (ready, reason) == (False, "NetworkPluginNotReady")
    assert message.startswith("Network plugin returns error: network: CNI STATUS by plugin 'two'")
    assert "no agent (code 50)" in message
    bench.plugins.make("two")
    assert (await network.ready())[0]


async def test_the_newest_version_that_all_speak_is_spoken(bench: Bench) -> None:
    bench.configure(
        bench.plugins.make("one", versions=["0.4.0", "1.0.0", "1.1.0"]),
        bench.plugins.make("two", versions=["0.4.0", "1.0.0"]),
        bench.plugins.make("silent", VERSION="sys.exit(1)"),
        cniVersion="0.4.0",
        cniVersions=["0.4.0", "1.0.0", "1.1.0"],
    )
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    assert {call["request"]["cniVersion"] for call in bench.plugins.calls("ADD")} == {"1.0.0"}
    bench.configure(bench.plugins.make("old", versions=["0.2.0"]))
    with pytest.raises(errors.FailedPrecondition, match=r"'old' .* supports 0\.2\.0, but 1\.0\.0"):
        await network.join("pod1", POD)
    assert not (await network.ready())[0]


async def test_pod_ranges_outlive_the_daemon_and_reach_who_asks(bench: Bench) -> None:
    bench.configure(bench.plugins.make("one") | {"capabilities": {"ipRanges": True}})
    network = await bench.start()
    await network.use_ranges(["10.1.0.0/24", "fd00::/64"])
    await bench.crash()
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=True)
    told = bench.plugins.calls("ADD")[0]["request"]["runtimeConfig"]
    assert told == {"ipRanges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}
    await network.use_ranges(["10.2.0.0/24"])
    bench.plugins.forget()
    await network.join("pod1", POD)
    delete, add = bench.plugins.calls("DEL", "ADD")
    assert delete["request"]["runtimeConfig"] == told, "as it was added"
    assert add["request"]["runtimeConfig"] == {"ipRanges": [[{"subnet": "10.2.0.0/24"}]]}


async def test_misuse_is_refused(bench: Bench) -> None:
    network = await bench.start()
    with pytest.raises(errors.FailedPrecondition, match="pod1 is not attached"):
        await network.join("pod1", POD)
    with pytest.raises(errors.Internal, match="ENOENT"):
        await network.attach("pod1", "/proc/0/ns/net", ahead=True)
    await network.attach("pod1", NETNS, ahead=True)
    with pytest.raises(errors.AlreadyExists, match="pod1"):
        await network.attach("pod1", NETNS, ahead=True)
    with pytest.raises(
        errors.FailedPrecondition, match="cni plugin not initialized: no network config found"
    ):
        await network.join("pod1", POD)
    await network.release("pod1")
    await network.release("never heard of")


async def test_a_release_waits_for_a_join_and_undoes_it(bench: Bench) -> None:
    bench.configure(bench.plugins.make("one", ADD=f"time.sleep(0.3); print(json.dumps({RESULT!r}))"))
    network = await bench.start()
    await network.attach("pod1", NETNS, ahead=False)
    join = asyncio.create_task(network.join("pod1", POD))
    await asyncio.sleep(0.05)
    await network.release("pod1")
    assert await join == IPS
    assert bench.plugins.order("ADD", "DEL") == ["ADD one", "DEL one"] and bench.cached() == []
