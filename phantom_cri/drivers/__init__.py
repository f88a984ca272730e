"""Runtime drivers: each makes containers of some kind of image; a runtime handler names the one of its pods.

A container keeps the driver that it was created with. A new one is a file here, its name in
`config.handlers.DRIVERS`, and its line in `__main__.make_drivers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from phantom_cri.model import ContainerRecord, Image, SandboxRecord
from phantom_cri.plans import ContainerSpec
from phantom_cri.requests import Resolved, Surroundings


class Driver(Protocol):
    """Changes nothing on the node; all methods answer at once."""

    def check_image(self, image: Image, annotations: Mapping[str, str]) -> None:
        """Raises FailedPrecondition saying why it cannot run this image; `annotations`: the container's."""
        ...

    def resolve(self, record: ContainerRecord, pod: SandboxRecord) -> Resolved:
        """What the request and its CDI devices mean on this node, checked.

        Raises InvalidArgument, FailedPrecondition, Unimplemented, naming field and value.
        """
        ...

    def container_spec(self, resolved: Resolved, given: Surroundings) -> ContainerSpec:
        """What the plan of its start is made from; `given`: what the node adds to what was asked for."""
        ...
