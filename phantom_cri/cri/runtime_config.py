"""UpdateRuntimeConfig: the kubelet sends the address ranges of the node's pods."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Protocol

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.errors import InvalidArgument

_FIELD = "runtime_config.network_config.pod_cidr"


class RuntimeConfigVerbs(Protocol):
    async def use_pod_ranges(self, ranges: Sequence[str]) -> None:
        """The node's pod CIDRs: at most one for each IP version, primary first."""
        ...


class RuntimeConfigService:
    """The part of `RuntimeService` for settings from the kubelet."""

    _verbs: RuntimeConfigVerbs

    async def UpdateRuntimeConfig(
        self, request: pb.UpdateRuntimeConfigRequest
    ) -> pb.UpdateRuntimeConfigResponse:
        ranges = pod_ranges_from(request.runtime_config.network_config.pod_cidr)
        if ranges:  # empty: the node has none yet
            await self._verbs.use_pod_ranges(ranges)
        return pb.UpdateRuntimeConfigResponse()


def pod_ranges_from(text: str) -> tuple[str, ...]:
    """`10.1.0.0/24,fd00::/64` → its ranges in canonical form. Raises InvalidArgument."""
    if not text:
        return ()
    ranges = []
    for part in text.split(","):
        try:
            if "/" not in part:
                raise ValueError("no prefix length")
            ranges.append(ipaddress.ip_network(part.strip()))
        except ValueError as error:
            raise InvalidArgument(f"{_FIELD}: {text!r}: {part!r} is not a range: {error}") from error
    if len({found.version for found in ranges}) < len(ranges):
        raise InvalidArgument(f"{_FIELD}: {text!r} has two ranges of one IP version")
    return tuple(str(found) for found in ranges)
