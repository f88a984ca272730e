"""The runtime's own status: conditions, handlers, features."""

from __future__ import annotations

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.codec import to_json
from phantom_cri.model import RuntimeStatus


def status_response(status: RuntimeStatus, *, verbose: bool) -> pb.StatusResponse:
    """`verbose` adds the details under `config`, where `crictl info` and critest look."""
    return pb.StatusResponse(
        status=pb.RuntimeStatus(
            conditions=[
                pb.RuntimeCondition(type=one.type, status=one.status, reason=one.reason, message=one.message)
                for one in status.conditions
            ]
        ),
        info={"config": to_json(status.details).decode()} if verbose else {},
        runtime_handlers=[
            pb.RuntimeHandler(
                name=one.name,
                features=pb.RuntimeHandlerFeatures(
                    recursive_read_only_mounts=one.recursive_read_only_mounts,
                    user_namespaces=one.user_namespaces,
                ),
            )
            for one in status.handlers
        ],
        features=pb.RuntimeFeatures(
            supplemental_groups_policy=status.supplemental_groups_policy,
            user_namespaces_host_network=status.user_namespaces_host_network,
        ),
    )
