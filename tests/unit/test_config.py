"""The configuration: what is refused and how it is named, who wins, and that its page is complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from phantom_cri import codec
from phantom_cri.codec import Record
from phantom_cri.config import Config, PoolConfig, PoolNamespaces, byte_count, load, parse, seconds
from phantom_cri.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs/configuration.md"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sise: 3", "config: unknown key sise"),
        ("pools: [{name: a, sise: 3}]", "config: unknown key pools[0].sise"),
        (
            "pools: [{name: a}, {name: b, namespaces: {host_uts: true}}]",
            "unknown key pools[1].namespaces.host_uts",
        ),
        ("pools: [{size: 3}]", "config: missing key pools[0].name"),
        ("streaming: {address: localhost}", "streaming.address: must be an IP address of this node"),
        ("streaming: {port: 65536}", "streaming.port: must be between 0 and 65535"),
        ("streaming: {tls_cert_file: /a}", "streaming.tls_key_file: must be given if and only if"),
        ("streaming: {tls_key_file: a}", "streaming.tls_key_file: must be an absolute path or empty"),
        ("streaming: {idle_timeout: 10ms}", "streaming.idle_timeout: must be 1s or longer"),
        ("pools: [{name: a, size: many}]", "config: pools[0].size: Expected `int`, got `str`"),
        ("pools: [{name: a, size: -1}]", "config: pools[0].size: must be between 0 and 4096, got -1"),
        ("pools: [{name: a, size: 5000}]", "pools[0].size: must be between 0 and 4096, got 5000"),
        ("pools: [{name: a, size: 1.5}]", "pools[0].size: Expected `int`, got `float`"),
        ("pools: [{name: a, max_age: 1}]", "pools[0].max_age: Expected `str`, got `int`"),
        ("pools: [{name: a, max_age: 1 h}]", "pools[0].max_age: must be a duration"),
        ("pools: [{name: a, max_age: 10ms}]", "pools[0].max_age: must be 1s or longer"),
        ("pools: [{name: ../a}]", "pools[0].name: must be 1 to 63 of"),
        ("pools: [{name: a}, {name: a}]", "config: pools[1].name: must be used once, got 'a'"),
        ("pools: [{name: a}, {name: b}]", "config: pools[1]: must be named by a handler, or the only one"),
        ("handlers: [{name: A}]", "config: handlers[0].name: must be 1 to 63 of"),
        ("handlers: [{name: a}, {name: a}]", "config: handlers[1].name: must be used once, got 'a'"),
        ("handlers: [{name: a, pools: [b]}]", "config: handlers[0].pools: must be the name of a pool"),
        (
            "handlers: [{name: a}, {name: b, driver: wasm}]",
            "config: handlers[1].driver: must be the name of a driver: native, got 'wasm'",
        ),
        ("handlers: [{name: a, policy: ../x}]", "config: handlers[0].policy: must be the name of a policy"),
        ("pools: {name: a}", "config: pools: Expected `array`, got `object`"),
        ("listen: /run/phantom/cri.sock", "config: listen: must be unix://"),
        ("listen: unix://relative.sock", "config: listen: must be unix://"),
        (f"listen: unix:///{'x' * 107}", "config: listen: must be unix://"),
        ("root: var/lib", "config: root: must be an absolute path, got 'var/lib'"),
        ("root: /var/../etc", "config: root: must be an absolute path"),
        ("state: /var/lib/phantom/", "config: state: must be another folder than root"),
        ("registry_config_path: certs.d", "config: registry_config_path: must be an absolute path or empty"),
        ("metrics_address: '9750'", "config: metrics_address: must be HOST:PORT or empty"),
        ("metrics_address: 127.0.0.1:70000", "config: metrics_address: must be HOST:PORT or empty"),
        ("pids_limit: -1", "config: pids_limit: must be between 0 and 4194304"),
        ("drain_timeout: soon", "config: drain_timeout: must be a duration"),
        ("log: {level: loud}", "config: log.level: Invalid enum value 'loud'"),
        ("log:", "config: log: Expected `object`, got `null`"),
        ("cgroup: {driver: openrc}", "config: cgroup.driver: "),
        (
            "cgroup: {driver: systemd, default_parent: /a/b}",
            "config: cgroup.default_parent: must be the name of a slice",
        ),
        (
            "cgroup: {default_parent: phantom}",
            "config: cgroup.default_parent: must be an absolute path below",
        ),
        ("cgroup: {default_parent: /}", "config: cgroup.default_parent: must be an absolute path below"),
        (
            "cgroup: {default_parent: /a/../b}",
            "config: cgroup.default_parent: must be an absolute path below",
        ),
        ("network: {bridge: ''}", "config: network.bridge: must be a letter and at most 14 of"),
        ("network: {bridge: a-name-of-16-byt}", "config: network.bridge: must be a letter and at most 14"),
        ("network: {bridge: a b}", "config: network.bridge: must be a letter"),
        ("network: {bridge: a/b}", "config: network.bridge: must be a letter"),
        ("network: {bridge: a@b}", "config: network.bridge: must be a letter"),
        ("network: {bridge: 0a}", "config: network.bridge: must be a letter"),
        ("network: {bridge: ä}", "config: network.bridge: must be a letter"),
        ('network: {bridge: "a\\n"}', "config: network.bridge: must be a letter"),
        ("network: {subnets: [10.88.0.1/16]}", "config: network.subnets[0]: must be a range"),
        (
            "network: {subnets: [10.88.0.0/16, 10.89.0.0/16]}",
            "config: network.subnets: must be one range for IPv4",
        ),
        ("network: {subnets: []}", "config: network.subnets: must be one range for IPv4"),
        ("network: {subnets: [10.88.0.0/31]}", "config: network.subnets[0]: must be a range of 4 addresses"),
        ("network: {subnets: [224.0.0.0/8]}", "config: network.subnets[0]: must be a range that is neither"),
        ("network: {subnets: [127.0.0.0/8]}", "config: network.subnets[0]: must be a range that is neither"),
        ("network: {mtu: 1000}", "config: network.mtu: must be 0 or between 1280 and 65535, got 1000"),
        (
            "network: {mtu: 1279, subnets: [10.0.0.0/8]}",
            "config: network.mtu: must be 0 or between 1280 and 65535, got 1279",
        ),
        ("network: {mtu: 65536}", "config: network.mtu: must be 0 or between 1280 and 65535, got 65536"),
        ("network: {mtu: -1}", "config: network.mtu: must be 0 or between 1280 and 65535, got -1"),
        ("network: {driver: calico}", "config: network.driver: Invalid enum value 'calico'"),
        ("network: {cni: {conf_dir: net.d}}", "config: network.cni.conf_dir: must be an absolute path"),
        ("network: {cni: {bin_dirs: []}}", "config: network.cni.bin_dirs: must be one folder or more"),
        ("network: {cni: {bin_dirs: ['/a:/b']}}", "network.cni.bin_dirs[0]: must be an absolute path"),
        ("network: {cni: {cache_dir: cni}}", "config: network.cni.cache_dir: must be an absolute path or"),
        ("network: {cni: {prewire: maybe}}", "config: network.cni.prewire: Invalid enum value 'maybe'"),
        ("network: {cni: {timeout: 10ms}}", "config: network.cni.timeout: must be 1s or longer"),
        ("images: {pinned: ['']}", "config: images.pinned[0]: must be an image's name"),
        ("images: {max_layer_bytes: 3Mb}", "config: images.max_layer_bytes: must be a size"),
        ("images: {max_layer_bytes: 0}", "config: images.max_layer_bytes: must be more than 0"),
        ("images: {parallel_layers: 0}", "config: images.parallel_layers: must be between 1 and 32"),
        ("policy: {directory: policies}", "config: policy.directory: must be an absolute path"),
        ("policy: {default: ../x}", "config: policy.default: must be the name of a policy"),
        ("exec: {output_limit: -1}", "config: exec.output_limit: must be 0 or more"),
        ("exec: {output_limit: true}", "config: exec.output_limit: Expected `int | str`, got `bool`"),
        ("- listen", "config: Expected `object`, got `array`"),
        ("{", "config: "),
        (b"\xff\xfe\x00", "config: "),
    ],
)
def test_refuses_by_name(text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(text)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("sise: 3")
    with pytest.raises(ConfigError, match=re.escape(f"config: unknown key sise (in {file})")):
        load(["--config", str(file)])
    with pytest.raises(ConfigError, match=r"cannot read .*absent: No such file"):
        load(["--config", str(tmp_path / "absent")])


@pytest.mark.parametrize("flags", [["--listen", "x"], ["--root", "x"], ["--metrics-address", "nowhere"]])
def test_checks_flags_too(flags: list[str]) -> None:
    with pytest.raises(ConfigError, match=flags[0].removeprefix("--").replace("-", "_")):
        load(flags)


@pytest.mark.parametrize("flags", [["--list", "unix:///x"], ["--log-level", "loud"], ["surplus"]])
def test_leaves_on_unknown_flags(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        load(flags)
    assert leaving.value.code == 2
    assert flags[0] in capsys.readouterr().err


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("root: /a\nstate: /b\nlog: {level: error, format: json}\nmetrics_address: a:1\n")
    config = load(["--config", str(file), "--root", "/c", "--log-level", "debug", "--metrics-address", ""])
    assert (config.root, config.state, config.metrics_address) == ("/c", "/b", "")
    assert (config.log.level, config.log.format) == ("debug", "json")


def test_flags_are_checked_together() -> None:
    config = load(["--root", "/run/phantom", "--state", "/tmp/state"])
    assert (config.root, config.state) == ("/run/phantom", "/tmp/state")


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "---\n"])
def test_an_empty_file_gives_the_defaults(text: str) -> None:
    assert parse(text) == Config()


def test_reads_a_pool_of_another_kind() -> None:
    config = parse(
        "pools: [{name: default, size: 0}, {name: node, size: 2, namespaces: {host_network: true}}]"
    )
    assert config.pools[0].size == 0
    assert config.pools[1] == PoolConfig("node", size=2, namespaces=PoolNamespaces(host_network=True))


def test_units() -> None:
    assert seconds("1h30m", "k") == 5400
    assert seconds("1.5s", "k") == 1.5
    assert seconds("250ms", "k") == 0.25
    assert seconds("0", "k") == 0
    assert byte_count("16MiB", "k") == 16 << 20
    assert byte_count("7", "k") == byte_count(7, "k") == 7
    for wrong in ("", "1", "h", "-1s", "1s ", "1h!", "1s1"):
        with pytest.raises(ValueError, match="k: must be a duration"):
            seconds(wrong, "k")
    for wrong in ("", "MiB", "-1", "1MB", "1 MiB ", "0x10"):
        with pytest.raises(ValueError, match="k: must be a size"):
            byte_count(wrong, "k")


def test_the_page_shows_every_key_and_its_default() -> None:
    match = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert match
    text = match[1]
    assert parse(text) == Config()
    assert set(_paths_of(codec.from_yaml(text, object))) == set(_keys_of(Config))
    lines = text.splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        if re.match(r"\s*(- )?[a-z_]+:.*\S$", line) and not line.endswith(":"):
            assert above.lstrip().startswith("#"), f"no word on {line!r}"


def _keys_of(kind: type[Record], prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(kind).items():
        if name not in kind.__struct_fields__:
            continue
        parts = [
            part for part in (hint, *get_args(hint)) if isinstance(part, type) and issubclass(part, Record)
        ]
        if parts:
            yield from _keys_of(parts[0], f"{prefix}{name}.")
        else:
            yield prefix + name


def _paths_of(document: Any, prefix: str = "") -> Iterator[str]:
    for name, value in document.items():
        nested = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
        if isinstance(nested, dict):
            yield from _paths_of(nested, f"{prefix}{name}.")
        else:
            yield prefix + name
