"""Configurations: what is refused and how it is named, and which file of a folder is in force."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from phantom_cri.network.cni.conflist import ConfFolder, Network, Refused, parse
from phantom_cri.network.cni.prewire import unavailable_reason

NET: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "f: must be an object"),
        ({}, "f: name: must be a string"),
        (NET | {"name": 1}, "f: name: must be a string"),
        (NET | {"name": "../etc"}, "f: name: '../etc' must be letters"),
        (NET | {"name": "-net"}, "f: name: '-net' must be letters"),
        (NET | {"cniVersion": "0.2.0"}, "f: cniVersion: '0.2.0' is not supported, only 0.3.0, 0.3.1"),
        ({"name": "net", "plugins": []}, "f: cniVersion: '0.1.0' is not supported"),
        (NET | {"cniVersion": 1}, "f: cniVersion: 1 is not supported"),
        (NET | {"cniVersions": "1.0.0"}, "f: cniVersions: must be a list of strings"),
        (NET | {"plugins": []}, "f: plugins: the list is empty"),
        (NET | {"plugins": {}}, "f: plugins: must be a list"),
        (NET | {"plugins": [1]}, "f: plugins[0]: must be an object"),
        (NET | {"plugins": [{"type": "a"}, {}]}, "f: plugins[1]: type: must be a string"),
        (NET | {"plugins": [{"type": "../sh"}]}, "f: plugins[0]: type: '../sh' is not a file name"),
        (NET | {"plugins": [{"type": ".."}]}, "f: plugins[0]: type: '..' is not a file name"),
        (NET | {"plugins": [{"type": "a", "capabilities": []}]}, "f: plugins[0]: capabilities: must be"),
        (NET | {"disableCheck": 1}, "f: disableCheck: must be true or false"),
        (NET | {"disableGC": "maybe"}, "f: disableGC: must be true or false"),
        ({"cniVersion": "1.0.0", "name": "n", "type": "a"}, "f: plugins: a list is needed since"),
        (
            {"cniVersion": "1.0.0", "name": "n", "loadOnlyInlinedPlugins": True},
            "f: loadOnlyInlinedPlugins: needs a list",
        ),
    ],
)
def test_refuses_by_name(document: object, message: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse(document, "f")
    assert message in str(refusal.value)


def test_versions_are_those_that_both_know_oldest_first() -> None:
    network = parse(NET | {"cniVersions": ["1.1.0", "7.0.0", "0.4.0"]}, "f")
    assert network.versions == ("0.4.0", "1.0.0", "1.1.0")


def test_a_single_plugin_is_a_network_before_version_1() -> None:
    network = parse({"cniVersion": "0.3.1", "name": "n", "type": "bridge", "mtu": 1}, "f")
    assert [plugin.type for plugin in network.plugins] == ["bridge"]
    assert network.plugins[0].fields["mtu"] == 1


def test_only_capabilities_that_are_true_are_wanted() -> None:
    plugin = {"type": "a", "capabilities": {"portMappings": True, "dns": False, "mac": "true"}}
    assert parse(NET | {"plugins": [plugin]}, "f").plugins[0].capabilities == {"portMappings"}


def test_reserved_keys_do_not_reach_a_plugin() -> None:
    plugin = {"type": "a", "cni.dev/attachments": [], "x": 1}
    assert parse(NET | {"plugins": [plugin]}, "f").plugins[0].fields == {"type": "a", "x": 1}


def test_what_was_used_can_be_made_again_without_the_file() -> None:
    plugins = [{"type": "a", "ipam": {"type": "b"}, "capabilities": {"dns": True}}, {"type": "c"}]
    network = parse(NET | {"plugins": plugins, "disableCheck": "true", "cniVersions": ["0.4.0"]}, "f")
    again = parse(json.loads(json.dumps(network.document())), "f")
    assert again.document() == network.document()
    assert again.disable_check and not again.disable_gc
    assert [(plugin.type, plugin.delegate) for plugin in again.plugins] == [("a", "b"), ("c", "")]


@pytest.mark.parametrize(
    ("plugin", "why"),
    [
        ({"type": "bridge", "ipam": {"type": "host-local"}, "capabilities": {"ipRanges": True}}, ""),
        ({"type": "portmap", "capabilities": {"portMappings": True}}, ""),
        ({"type": "calico"}, "plugin 'calico' may depend on the pod"),
        ({"type": "bridge", "ipam": {"type": "dhcp"}}, "plugin 'dhcp' may depend on the pod"),
        ({"type": "bridge", "ipam": {"type": "static"}}, "plugin 'static' may depend"),
        ({"type": "bridge", "capabilities": {"dns": True}}, "plugin 'bridge' needs each pod's dns"),
    ],
)
def test_what_can_be_attached_before_its_pod_is_known(plugin: dict[str, Any], why: str) -> None:
    network = parse(NET | {"plugins": [{"type": "ptp"}, plugin]}, "f")
    assert why in unavailable_reason("auto", network) and bool(why) == bool(
        unavailable_reason("auto", network)
    )
    assert unavailable_reason("always", network) == ""
    assert unavailable_reason("never", network) == "network.cni.prewire is never"


# --- the folder -----------------------------------------------------------


def put(path: Path, name: str = "net", **fields: Any) -> None:
    half = path.with_suffix(".half")
    half.write_text(json.dumps(NET | {"name": name} | fields))
    half.rename(path)


def name_of(network: Network | None) -> str:
    return network.name if network else ""


def test_the_first_file_by_name_counts(tmp_path: Path) -> None:
    for file, name in (("20-b.conflist", "b"), ("10-a.json", "a"), ("00-no.txt", "no"), ("05", "no")):
        put(tmp_path / file, name)
    (tmp_path / "01-folder.conf").mkdir()
    assert name_of(ConfFolder(tmp_path).network()) == "a"


def test_without_a_folder_or_file_there_is_none(tmp_path: Path) -> None:
    folder = ConfFolder(tmp_path / "net.d")
    assert folder.network() is None
    assert folder.complaint == f"no network config found in {tmp_path}/net.d"
    (tmp_path / "net.d").mkdir()
    assert folder.network() is None
    put(tmp_path / "net.d/a.conflist")
    assert name_of(folder.network()) == "net" and folder.complaint == ""
    (tmp_path / "net.d/a.conflist").unlink()
    assert folder.network() is None and "no network config found" in folder.complaint


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"{}", b" " * (1 << 20) + b"{}"])
def test_a_broken_file_leaves_the_last_good_one_in_force(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.conflist"
    path.write_bytes(content)
    folder = ConfFolder(tmp_path)
    assert folder.network() is None and str(path) in folder.complaint
    put(path, "good")
    assert name_of(folder.network()) == "good" and folder.complaint == ""
    path.write_bytes(content)
    assert name_of(folder.network()) == "good"
    assert folder.complaint.endswith("network 'good' stays in use unchanged")
    put(path, "better")
    assert name_of(folder.network()) == "better" and folder.complaint == ""


def test_a_file_before_it_takes_over_and_a_broken_one_is_not_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "20.conflist", "later")
    folder = ConfFolder(tmp_path)
    assert name_of(folder.network()) == "later"
    put(tmp_path / "10.conflist", "first")
    assert name_of(folder.network()) == "first"
    (tmp_path / "10.conflist").write_text("{")
    assert name_of(folder.network()) == "first", "pods do not move to another network by a slip of the pen"


def test_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    put(tmp_path / "a.conflist")
    folder = ConfFolder(tmp_path)
    assert folder.network() is folder.network()


def test_plugins_beside_a_network_join_it_unless_told_not_to(tmp_path: Path) -> None:
    put(tmp_path / "a.conflist")
    more = tmp_path / "net"
    folder = ConfFolder(tmp_path)
    assert name_of(folder.network()) == "net"
    more.mkdir()
    for file, kind in (("20.conf", "late"), ("10.conf", "early"), ("05.json", "not")):
        (more / file).write_text(json.dumps({"type": kind}))
    network = folder.network()
    assert network and [plugin.type for plugin in network.plugins] == ["bridge", "early", "late"]
    (more / "10.conf").write_text(json.dumps({"type": "other"}))
    network = folder.network()
    assert network and [plugin.type for plugin in network.plugins] == ["bridge", "other", "late"]
    put(tmp_path / "a.conflist", loadOnlyInlinedPlugins=True)
    network = folder.network()
    assert network and [plugin.type for plugin in network.plugins] == ["bridge"]
    put(tmp_path / "a.conflist")
    (more / "10.conf").write_text("[]")
    assert folder.network() is network and f"{more}/10.conf: must be an object" in folder.complaint


def test_a_folder_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "net.d").mkdir()
    put(tmp_path / "net.d" / "a.conflist")
    folder = ConfFolder(tmp_path / "net.d")
    assert name_of(folder.network()) == "net"
    os.rename(tmp_path / "net.d", tmp_path / "aside")
    (tmp_path / "net.d").symlink_to("net.d")  # ELOOP
    assert name_of(folder.network()) == "net" and "net.d" in folder.complaint
