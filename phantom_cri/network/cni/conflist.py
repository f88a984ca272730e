"""CNI network configurations (spec 1.1.0, section 1), and their folder."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phantom_cri import codec

log = logging.getLogger(__name__)

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""The supported versions of the specification, oldest first."""

SUFFIXES = (".conf", ".conflist", ".json")
MAX_BYTES = 1 << 20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_RESERVED = ("cni.dev/",)

Fields = dict[str, Any]


class Refused(ValueError):
    """A configuration that cannot be used; names the file and the mistake."""


@dataclass(frozen=True, eq=False, slots=True)
class Plugin:
    """One plugin configuration object. `fields`: the whole object, unchanged."""

    type: str
    fields: Fields
    capabilities: frozenset[str]

    @property
    def delegate(self) -> str:
        """The IPAM plugin that it calls, "" for none."""
        ipam = self.fields.get("ipam")
        return str(ipam.get("type", "")) if isinstance(ipam, dict) else ""


@dataclass(frozen=True, eq=False, slots=True)
class Network:
    """A checked configuration. `versions`: those that it and we support, oldest first; `origin`: its file."""

    name: str
    versions: tuple[str, ...]
    plugins: tuple[Plugin, ...]
    origin: str
    disable_check: bool = False
    disable_gc: bool = False

    def document(self) -> Fields:
        """A document from which `parse` makes the same network, even if the file has changed."""
        return {
            "cniVersion": self.versions[-1],
            "cniVersions": list(self.versions),
            "name": self.name,
            "disableCheck": self.disable_check,
            "disableGC": self.disable_gc,
            "plugins": [plugin.fields for plugin in self.plugins],
        }


def parse(document: object, origin: str, *, folder: Path | None = None) -> Network:
    """A list, or (before version 1.0.0) a single plugin's configuration.

    folder: may contain a folder named as the network with more plugins (`loadOnlyInlinedPlugins`).
    Raises Refused.
    """
    if not isinstance(document, dict):
        raise Refused(f"{origin}: must be an object")
    name = _text(document, "name", origin)
    if not _NAME.fullmatch(name):
        raise Refused(
            f"{origin}: name: {name!r} must be letters, digits, _ . - and begin with a letter or digit"
        )
    versions = _versions(document, origin)
    if "plugins" not in document and "type" in document:
        if versions[0] >= "1.0.0":
            raise Refused(f"{origin}: plugins: a list is needed since cniVersion 1.0.0")
        plugins = [_plugin(document, origin)]
    else:
        plugins = list(_plugins(document, name, origin, folder))
    if not plugins:
        raise Refused(f"{origin}: plugins: the list is empty")
    return Network(
        name,
        versions,
        tuple(plugins),
        origin,
        disable_check=_flag(document, "disableCheck", origin),
        disable_gc=_flag(document, "disableGC", origin),
    )


def _versions(document: Fields, origin: str) -> tuple[str, ...]:
    several = document.get("cniVersions", [])
    if not isinstance(several, list) or not all(isinstance(version, str) for version in several):
        raise Refused(f"{origin}: cniVersions: must be a list of strings")
    # without a version it is 0.1.0 (libcni)
    asked = [document.get("cniVersion", "0.1.0"), *several]
    known = tuple(version for version in VERSIONS if version in asked)
    if not known:
        raise Refused(f"{origin}: cniVersion: {asked[0]!r} is not supported, only {', '.join(VERSIONS)}")
    return known


def _plugins(document: Fields, name: str, origin: str, folder: Path | None) -> Iterator[Plugin]:
    inlined = document.get("plugins", [])
    if not isinstance(inlined, list):
        raise Refused(f"{origin}: plugins: must be a list")
    only_inlined = _flag(document, "loadOnlyInlinedPlugins", origin)
    if only_inlined and "plugins" not in document:
        raise Refused(f"{origin}: loadOnlyInlinedPlugins: needs a list of plugins")
    for index, fields in enumerate(inlined):
        yield _plugin(fields, f"{origin}: plugins[{index}]")
    if folder is not None and not only_inlined:
        for path in plugin_files(folder / name):
            yield _plugin(_read(path), str(path))


def _plugin(fields: object, where: str) -> Plugin:
    if not isinstance(fields, dict):
        raise Refused(f"{where}: must be an object")
    kind = _text(fields, "type", where)
    if "/" in kind or kind in (".", "..") or "\0" in kind:
        raise Refused(f"{where}: type: {kind!r} is not a file name")
    capabilities = fields.get("capabilities", {})
    if not isinstance(capabilities, dict):
        raise Refused(f"{where}: capabilities: must be an object")
    passed = {key: value for key, value in fields.items() if not key.startswith(_RESERVED)}
    return Plugin(kind, passed, frozenset(key for key, wanted in capabilities.items() if wanted is True))


def _text(document: Fields, key: str, where: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise Refused(f"{where}: {key}: must be a string")
    return value


def _flag(document: Fields, key: str, where: str) -> bool:
    value = document.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):  # libcni accepts these too
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise Refused(f"{where}: {key}: must be true or false")
    return value


def _read(path: Path) -> object:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from error
    if len(text) > MAX_BYTES:
        raise Refused(f"{path}: has more than {MAX_BYTES} bytes")
    try:
        return codec.from_json(text, object)
    except (codec.DecodeError, RecursionError) as error:
        raise Refused(f"{path}: {error}") from error


def plugin_files(folder: Path) -> list[Path]:
    """Plugin configurations beside a network's own: FOLDER/*.conf."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".conf")
    except (FileNotFoundError, NotADirectoryError):
        return []


def network_files(folder: Path) -> list[Path]:
    """All possible network files, in lexical order. Raises OSError if the folder cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []


class ConfFolder:
    """The folder's first network, read again when a file has changed.

    The folder is checked when needed (a pod, a status), which takes some 30 µs, instead of being watched.
    """

    def __init__(self, folder: Path) -> None:
        self.complaint = ""
        """Why there is no network, or why a newer one is not used."""
        self._folder = folder
        self._network: Network | None = None
        self._seen: object = None

    def network(self) -> Network | None:
        """The network that new pods get.

        If the file cannot be used, the last good one stays in use; without any file there is no network.
        """
        try:
            files = network_files(self._folder)
            seen = self._signature(files)
        except OSError as error:
            self._complain(f"{self._folder}: {error.strerror}")
            return self._network
        if seen != self._seen:
            self._load(files)
            self._seen = self._signature(files)  # again: the network's name may add another folder
        return self._network

    def _load(self, files: list[Path]) -> None:
        if not files:
            self._network = None
            self._complain(f"no network config found in {self._folder}")
            return
        try:
            network = parse(_read(files[0]), str(files[0]), folder=self._folder)
        except Refused as error:
            kept = f"; network {self._network.name!r} stays in use unchanged" if self._network else ""
            self._complain(f"{error}{kept}")
            return
        log.info("CNI network %r loaded from %s", network.name, network.origin)
        self._network, self.complaint = network, ""

    def _complain(self, why: str) -> None:
        if why != self.complaint:
            log.warning("CNI: %s", why)
        self.complaint = why

    def _signature(self, files: list[Path]) -> Mapping[str, tuple[int, ...]]:
        more = plugin_files(self._folder / self._network.name) if self._network else []
        found = {}
        for path in [*files, *more]:
            try:
                status = os.stat(path)
            except FileNotFoundError:
                continue
            found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return found
