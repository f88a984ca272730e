"""GetContainerEvents: a stream of events, each with the state of the pod right after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.convert.container import container_status_message
from phantom_cri.cri.convert.sandbox import sandbox_status_message
from phantom_cri.model import ContainerEvent, EventKind

_KINDS: dict[EventKind, pb.ContainerEventType] = {
    "created": pb.CONTAINER_CREATED_EVENT,
    "started": pb.CONTAINER_STARTED_EVENT,
    "stopped": pb.CONTAINER_STOPPED_EVENT,
    "deleted": pb.CONTAINER_DELETED_EVENT,
}


class EventVerbs(Protocol):
    def listen(self) -> AsyncIterator[ContainerEvent]:
        """All events from this call on, in order. Raises ResourceExhausted if the reader falls behind."""
        ...


class EventService:
    _verbs: EventVerbs

    def GetContainerEvents(self, request: pb.GetEventsRequest) -> AsyncIterator[pb.ContainerEventResponse]:
        """Not a generator itself, so that it subscribes before the client gets the call's metadata."""
        return _messages(self._verbs.listen())


async def _messages(events: AsyncIterator[ContainerEvent]) -> AsyncIterator[pb.ContainerEventResponse]:
    async for event in events:
        yield pb.ContainerEventResponse(
            container_id=event.object_id,
            container_event_type=_KINDS[event.kind],
            created_at=event.created_at,
            pod_sandbox_status=sandbox_status_message(event.pod),
            containers_statuses=[container_status_message(record) for record in event.containers],
        )
