"""Listening to what happens on the node: `phantom_cri.cri.event_service.EventVerbs`."""

from __future__ import annotations

from phantom_cri.lifecycle.events import Reader
from phantom_cri.lifecycle.node import Node


class EventVerbs:
    _node: Node

    def listen(self) -> Reader:
        return self._node.events.listen()
