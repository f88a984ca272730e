"""Subscriptions to events: implements `phantom_cri.cri.event_service.EventVerbs`."""

from __future__ import annotations

from phantom_cri.lifecycle.events import Reader
from phantom_cri.lifecycle.runtime import Runtime


class EventVerbs:
    _runtime: Runtime

    def listen(self) -> Reader:
        return self._runtime.events.listen()
