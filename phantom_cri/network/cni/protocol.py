"""One call of one plugin: its request and its answer (CNI spec, sections 2, 3, 5)."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from phantom_cri import codec, errors
from phantom_cri.codec import Document
from phantom_cri.network.cni import program
from phantom_cri.network.cni.capabilities import Arguments
from phantom_cri.network.cni.conflist import Fields, Network, Plugin

INTERFACE = "eth0"

_TRY_AGAIN = 11
_UNAVAILABLE = (50, 51)
_SHOWN = 400  # characters of a plugin's message


class Call(NamedTuple):
    """The parameters common to all plugins of a network. netns: a path, "" if the namespace is gone."""

    sandbox_id: str = ""
    netns: str = ""
    args: str = ""
    capabilities: Arguments = {}


class PluginError(Document, frozen=True):
    code: int = 0
    msg: str = ""
    details: str = ""


class _Address(Document, frozen=True):
    address: str
    interface: int | None = None


class _Interface(Document, frozen=True):
    name: str = ""
    sandbox: str = ""


class _Result(Document, frozen=True):
    interfaces: tuple[_Interface, ...] = ()
    ips: tuple[_Address, ...] = ()


class Caller:
    """Finds and calls plugins. timeout_s: seconds for one call."""

    def __init__(self, bin_dirs: Sequence[Path], timeout_s: float) -> None:
        self._bin_dirs = tuple(bin_dirs)
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(max(8, 4 * (os.cpu_count() or 1)))
        self._spoken: dict[tuple[str, int, int], frozenset[str]] = {}

    def find(self, kind: str) -> str:
        """The plugin's path. Raises FailedPrecondition naming the searched folders."""
        for folder in self._bin_dirs:
            path = folder / kind
            if path.is_file() and os.access(path, os.X_OK):
                return str(path)
        folders = ", ".join(str(folder) for folder in self._bin_dirs)
        raise errors.FailedPrecondition(f"network: CNI plugin {kind!r} is not in {folders}")

    async def call(
        self,
        command: str,
        network: Network,
        plugin: Plugin,
        version: str,
        call: Call,
        *,
        previous: Fields | None = None,
        extra: Fields | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Call the plugin; returns its stdout, and drops its stderr.

        Raises FailedPrecondition if the plugin is missing, Unavailable if it requests a retry or hangs,
        Internal with its message.
        """
        path = self.find(plugin.type)
        request = derive(network, plugin, version, call.capabilities, previous, extra)
        try:
            async with self._slots:  # after a node's boot a hundred pods start at once
                environment = self._environment(command, call)
                outcome = await program.run(path, environment, request, timeout_s or self._timeout_s)
        except errors.PhantomError as error:
            raise type(error)(f"{where(command, network, plugin)}: {error}") from error
        if outcome.status:
            raise refusal(where(command, network, plugin), outcome)
        return outcome.stdout

    async def versions(self, plugin: Plugin, timeout_s: float) -> frozenset[str]:
        """The versions that a plugin supports, empty if it does not report them; cached for each file."""
        path = self.find(plugin.type)
        status = os.stat(path)
        key = (path, status.st_ino, status.st_mtime_ns)
        if key not in self._spoken:
            request = codec.to_json({"cniVersion": "1.0.0"})
            outcome = await program.run(path, self._environment("VERSION", Call()), request, timeout_s)
            self._spoken[key] = _supported(outcome.stdout)
        return self._spoken[key]

    def _environment(self, command: str, call: Call) -> dict[str, str]:
        """The daemon's environment, for PATH and proxies, and the protocol's variables."""
        protocol = {"CNI_COMMAND": command, "CNI_PATH": ":".join(str(folder) for folder in self._bin_dirs)}
        if call.sandbox_id:
            protocol |= {
                "CNI_CONTAINERID": call.sandbox_id,
                "CNI_NETNS": call.netns,
                "CNI_IFNAME": INTERFACE,
                "CNI_ARGS": call.args,
            }
        ours = {key: value for key, value in os.environ.items() if not key.startswith("CNI_")}
        return ours | protocol


def derive(
    network: Network,
    plugin: Plugin,
    version: str,
    capabilities: Arguments,
    previous: Fields | None,
    extra: Fields | None = None,
) -> bytes:
    """The request to one plugin: its configuration with the runtime's additions (section 3)."""
    request = dict(plugin.fields)
    for key in ("capabilities", "runtimeConfig", "prevResult"):
        request.pop(key, None)
    request |= {"cniVersion": version, "name": network.name}
    arguments = arguments_for(plugin, capabilities)
    if arguments:
        request["runtimeConfig"] = arguments
    if previous is not None:
        request["prevResult"] = previous
    return codec.to_json(request | (extra or {}))


def arguments_for(plugin: Plugin, capabilities: Arguments) -> Fields:
    """The capability arguments that the plugin declares."""
    return {name: value for name, value in capabilities.items() if name in plugin.capabilities}


def result_of(place: str, stdout: bytes) -> Fields:
    """A plugin's unchanged result; only the fields that we use are checked. Raises Internal."""
    try:
        result = codec.from_json(stdout, dict[str, Any])
        codec.convert(result, _Result)
    except (codec.DecodeError, RecursionError) as error:
        raise errors.Internal(f"{place}: {_shown(stdout)} is not a valid result: {error}") from error
    return result


def addresses(place: str, result: Fields) -> tuple[str, ...]:
    """The addresses of the pod's own interface, in the result's order. Raises Internal if it has none."""
    known = codec.convert(result, _Result)
    found = []
    for entry in known.ips:
        if not _is_ours(known, entry.interface):
            continue
        try:
            found.append(str(ipaddress.ip_interface(entry.address).ip))
        except ValueError as error:
            raise errors.Internal(f"{place}: ips: {entry.address!r} is not an address") from error
    if not found:
        raise errors.Internal(f"{place}: {INTERFACE} got no address")
    return tuple(dict.fromkeys(found))


def _is_ours(result: _Result, index: int | None) -> bool:
    """An address without an interface belongs to the requested one (as other users of libcni assume)."""
    if index is None:
        return True
    if not 0 <= index < len(result.interfaces):
        return False
    interface = result.interfaces[index]
    return interface.name == INTERFACE and interface.sandbox != ""


def refusal(place: str, outcome: program.Outcome) -> errors.PhantomError:
    """The message of a failed plugin as one of our errors."""
    said = _plugin_error(outcome.stdout) or _plugin_error(outcome.stderr)
    if said is None:
        ended = f"exit code {outcome.status}" if outcome.status > 0 else f"signal {-outcome.status}"
        words = outcome.stderr if outcome.stderr.strip() else outcome.stdout
        return errors.Internal(f"{place}: {ended}: {_shown(words)}")
    details = f"; {_plain(said.details)}" if said.details else ""
    text = f"{place}: {_plain(said.msg)}{details} (code {said.code})"
    again = said.code == _TRY_AGAIN or said.code in _UNAVAILABLE
    return errors.Unavailable(text) if again else errors.Internal(text)


def _plugin_error(text: bytes) -> PluginError | None:
    try:
        said = codec.from_json(text, PluginError)
    except (codec.DecodeError, RecursionError):
        return None
    return said if said.code or said.msg else None


def _supported(answer: bytes) -> frozenset[str]:
    try:
        versions = codec.from_json(answer, dict[str, Any]).get("supportedVersions")
    except (codec.DecodeError, RecursionError):
        return frozenset()
    return frozenset(map(str, versions)) if isinstance(versions, list) else frozenset()


def where(command: str, network: Network, plugin: Plugin) -> str:
    return f"network: CNI {command} by plugin {plugin.type!r} of network {network.name!r} ({network.origin})"


def _shown(text: bytes) -> str:
    words = _plain(text[: 4 * _SHOWN].decode("utf-8", "replace"))
    return repr(words) if words else "nothing"


def _plain(text: str) -> str:
    """A message of a plugin, shortened to one printable line."""
    words = " ".join(text[: 4 * _SHOWN].split())
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words[:_SHOWN]
    )
