"""Runtime drivers: each runs one kind of image; a runtime handler names the driver of its pods.

A container keeps the driver that it was created with. To add one: a file here, its name in
`config.handlers.DRIVERS`, and a line in `__main__.make_drivers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from phantom_cri.model import ContainerRecord, Image, SandboxRecord
from phantom_cri.plans import ContainerSpec
from phantom_cri.requests import Resolved, Surroundings


class Driver(Protocol):
    """Changes nothing on the node; no method blocks."""

    def check_image(self, image: Image, annotations: Mapping[str, str]) -> None:
        """Raises FailedPrecondition for an image that it cannot run; `annotations`: the container's."""
        ...

    def resolve(self, record: ContainerRecord, pod: SandboxRecord) -> Resolved:
        """The request and its CDI devices, checked and resolved for this node.

        Raises InvalidArgument, FailedPrecondition, Unimplemented, naming field and value.
        """
        ...

    def container_spec(self, resolved: Resolved, given: Surroundings) -> ContainerSpec:
        """The input of the start plan; `given`: what the node adds to the request."""
        ...
