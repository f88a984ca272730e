"""IPAM: subnets, round-robin allocation of addresses, and records that survive a crash."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from phantom_cri import codec, errors
from phantom_cri.model import PortMapping

log = logging.getLogger(__name__)

_SANDBOX_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SUFFIX = ".json"


class PodNetwork(codec.Stored, frozen=True):
    """Addresses and ports of one sandbox; written before the kernel is configured."""

    ips: tuple[str, ...] = ()
    ports: tuple[PortMapping, ...] = ()


class Subnet:
    """One subnet's addresses, allocated round robin: a released one is reused as late as possible."""

    def __init__(self, cidr: str) -> None:
        """Raises InvalidArgument naming the subnet."""
        try:
            self.network = ipaddress.ip_network(cidr)
        except ValueError as error:
            raise errors.InvalidArgument(f"network.subnets: {cidr!r}: {error}") from error
        self._first = int(self.network.network_address) + 1
        # IPv4's last address is for broadcast
        self._last = int(self.network.broadcast_address) - (self.network.version == 4)
        if self._last <= self._first or self.network.is_multicast or self.network.is_loopback:
            raise errors.InvalidArgument(f"network.subnets: {cidr!r} has no room for a gateway and a pod")
        self.gateway = ipaddress.ip_interface((self._first, self.network.prefixlen))
        self.cursor = self._first
        self._used: set[int] = set()

    @property
    def version(self) -> int:
        return self.network.version

    @property
    def capacity(self) -> int:
        return self._last - self._first

    @property
    def used(self) -> int:
        return len(self._used)

    def take(self) -> bytes:
        """The next free address, packed. Raises ResourceExhausted naming the subnet."""
        if len(self._used) >= self.capacity:
            raise errors.ResourceExhausted(
                f"network: all {self.capacity} addresses of {self.network} are in use"
            )
        candidate = self.cursor
        while True:
            candidate = candidate + 1 if self._first <= candidate < self._last else self._first + 1
            if candidate not in self._used:
                break
        self._used.add(candidate)
        self.cursor = candidate
        return candidate.to_bytes(self.network.max_prefixlen // 8, "big")

    def hold(self, address: str) -> None:
        """Mark an address as used; one of another subnet (of an earlier config) is ignored."""
        number = self._number(address)
        if number is not None:
            self._used.add(number)

    def give_back(self, address: str) -> None:
        number = self._number(address)
        if number is not None:
            self._used.discard(number)

    def _number(self, address: str) -> int | None:
        parsed = ipaddress.ip_address(address)
        return int(parsed) if parsed in self.network else None


class AddressBook:
    """Addresses of all sandboxes, in memory and as one file per sandbox under `folder`.

    All methods run in one thread, but `write` may run in another.
    """

    def __init__(self, folder: Path, subnets: Sequence[Subnet]) -> None:
        self.subnets = subnets
        self.held: dict[str, PodNetwork] = {}
        self._pods = folder / "pods"
        self._cursor_path = folder / "cursor"
        self._cursor = -1
        self._newer: set[str] = set()  # sandboxes with a record of a newer schema

    def recover(self, live: Mapping[str, tuple[str, ...]]) -> None:
        """Read the records; where they differ from `live`, use that; delete all others. Raises Internal.

        A record of a newer schema is not changed; of its sandbox only the addresses in `live` are known.
        """
        try:
            self._pods.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._recover_records(live)
            self._recover_cursor()
        except OSError as error:
            raise errors.Internal(f"network: recover addresses: {error}") from error

    def _recover_records(self, live: Mapping[str, tuple[str, ...]]) -> None:
        self.held.clear()
        records = dict(self._read_records())
        for sandbox_id, ips in live.items():
            if not ips:  # in the host's network, or not attached according to its owner
                continue
            record = records.pop(sandbox_id, None)
            if record is None or record.ips != ips:
                record = PodNetwork(ips)
                if sandbox_id not in self._newer:
                    self.write(sandbox_id, record)
            self.held[sandbox_id] = record
            for ip in record.ips:
                for subnet in self.subnets:
                    subnet.hold(ip)
        for sandbox_id in records:
            self._erase(sandbox_id)

    def take(self, sandbox_id: str, subnets: Sequence[Subnet]) -> list[bytes]:
        """Allocate one packed address of each subnet: all or, on error, none.

        Raises InvalidArgument, AlreadyExists, ResourceExhausted, Internal.
        """
        if not _SANDBOX_ID.fullmatch(sandbox_id):
            raise errors.InvalidArgument(f"sandbox_id {sandbox_id!r} cannot name a file")
        if sandbox_id in self.held:
            raise errors.AlreadyExists(f"sandbox {sandbox_id} is already attached")
        taken: list[bytes] = []
        try:
            for subnet in subnets:
                taken.append(subnet.take())
            if self._cursor >= 0:
                cursors = (subnet.cursor.to_bytes(16, "big") for subnet in self.subnets)
                os.pwrite(self._cursor, b"".join(cursors), 0)
        except BaseException as error:
            self.give_back([str(ipaddress.ip_address(packed)) for packed in taken])
            if isinstance(error, OSError):
                raise _unwritten(sandbox_id, error) from error
            raise
        return taken

    def forget(self, sandbox_id: str) -> PodNetwork | None:
        """Delete a sandbox's record, None if it is unknown. Its addresses stay reserved until `give_back`."""
        record = self.held.pop(sandbox_id, None)
        if record is not None:
            self._erase(sandbox_id)
        return record

    def give_back(self, ips: Sequence[str]) -> None:
        for ip in ips:
            for subnet in self.subnets:
                subnet.give_back(ip)

    def create(self, sandbox_id: str, record: PodNetwork) -> None:
        """Write a sandbox's first record, at half the cost of `write`: a crash may leave it empty, which
        `recover` treats as no addresses, as the sandbox has none then. Raises Internal, ResourceExhausted.
        """
        try:
            fd = os.open(self._path(sandbox_id), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                codec.write_all(fd, codec.to_json(record))
            finally:
                os.close(fd)
        except OSError as error:
            raise _unwritten(sandbox_id, error) from error

    def write(self, sandbox_id: str, record: PodNetwork) -> None:
        """Replace the record atomically. Raises Internal, ResourceExhausted."""
        try:
            codec.write_atomically(self._path(sandbox_id), codec.to_json(record))
        except OSError as error:
            raise _unwritten(sandbox_id, error) from error

    def _erase(self, sandbox_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(sandbox_id))

    def close(self) -> None:
        if self._cursor >= 0:
            os.close(self._cursor)
            self._cursor = -1

    def _path(self, sandbox_id: str) -> str:
        return f"{self._pods}/{sandbox_id}{_SUFFIX}"

    def _read_records(self) -> list[tuple[str, PodNetwork]]:
        """All records; a damaged one counts as empty, temporary files are removed."""
        records = []
        self._newer.clear()
        for path in self._pods.iterdir():
            if path.suffix != _SUFFIX:
                path.unlink()
                continue
            sandbox_id = path.name.removesuffix(_SUFFIX)
            try:
                record = codec.from_stored(path.read_bytes(), PodNetwork)
            except codec.DecodeError:
                record = PodNetwork()
            except codec.NewerSchema as error:
                log.error("%s is ignored and not changed, host ports of its pod are closed: %s", path, error)
                self._newer.add(sandbox_id)
                continue
            records.append((sandbox_id, record))
        return records

    def _recover_cursor(self) -> None:
        """Continue after the last allocated address, so that a restart does not cause early reuse.

        Written in place, without a rename: a damaged value only changes where allocation starts.
        """
        self.close()
        self._cursor = os.open(self._cursor_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stored = os.pread(self._cursor, 16 * len(self.subnets), 0)
        if len(stored) == 16 * len(self.subnets):
            for subnet, (high, low) in zip(self.subnets, struct.iter_unpack(">QQ", stored), strict=True):
                subnet.cursor = high << 64 | low


def _unwritten(sandbox_id: str, error: OSError) -> errors.PhantomError:
    return errors.kernel_error(f"network: write record of sandbox {sandbox_id}", error.errno or 0)


def parse_subnets(cidrs: Sequence[str]) -> tuple[Subnet, ...]:
    """At most one subnet per IP version, in the given order. Raises InvalidArgument."""
    subnets = tuple(Subnet(cidr) for cidr in cidrs)
    versions = [subnet.version for subnet in subnets]
    if not versions or len(set(versions)) < len(versions):
        raise errors.InvalidArgument(
            f"network.subnets: {list(cidrs)!r}: one IPv4 subnet, one IPv6 subnet or one of each are possible"
        )
    return subnets
