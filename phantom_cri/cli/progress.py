"""Progress of a pull or load: bars on a terminal, else a line per layer; on stderr."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable
from typing import TextIO

from phantom_cri.api.phantom.v1 import node_pb2 as wire
from phantom_cri.cli.failure import Failure
from phantom_cri.cli.tables import size

BAR = 30

_WORDS = {
    wire.Layer.State.WAITING: "Waiting",
    wire.Layer.State.DOWNLOADING: "Downloading",
    wire.Layer.State.UNPACKING: "Unpacking",
    wire.Layer.State.DONE: "Pull complete",
    wire.Layer.State.EXISTS: "Already exists",
}


async def follow(
    messages: AsyncIterable[wire.Progress], *, quiet: bool = False, output: TextIO | None = None
) -> list[wire.LoadedImage]:
    """Show progress until the end; returns the pulled or loaded images."""
    output = output or sys.stderr
    show = _Nothing() if quiet else _Bars(output) if output.isatty() else _Lines(output)
    images: list[wire.LoadedImage] = []
    async for message in messages:
        for layer in message.layers:
            show.layer(layer)
        show.flush()
        images.extend(message.images)
    if not images:
        raise Failure("the daemon ended the transfer without an image")
    return images


class _Nothing:
    def layer(self, layer: wire.Layer) -> None:
        pass

    def flush(self) -> None:
        pass


class _Lines(_Nothing):
    """One line per layer and state: for files and pipes."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._states: dict[str, int] = {}

    def layer(self, layer: wire.Layer) -> None:
        if self._states.get(layer.digest) != layer.state:
            self._states[layer.digest] = layer.state
            print(f"{_short(layer)}: {_WORDS[layer.state]}", file=self._output)

    def flush(self) -> None:
        self._output.flush()


class _Bars(_Nothing):
    """One line per layer, updated in place."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._layers: dict[str, wire.Layer] = {}
        self._drawn = 0

    def layer(self, layer: wire.Layer) -> None:
        self._layers[layer.digest] = layer

    def flush(self) -> None:
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        lines = "".join(f"\r{bar_line(layer)}\x1b[K\n" for layer in self._layers.values())
        self._output.write(up + lines)
        self._output.flush()
        self._drawn = len(self._layers)


def bar_line(layer: wire.Layer) -> str:
    """`1f2d3c4b5a69: Downloading [=====>    ] 12MB/31MB`."""
    moving = layer.state in (wire.Layer.State.DOWNLOADING, wire.Layer.State.UNPACKING)
    text = f"{_short(layer)}: {_WORDS[layer.state]}"
    if not moving:
        return text
    if not layer.total:
        return f"{text} {size(layer.done)}"
    full = min(BAR, BAR * layer.done // layer.total)
    bar = ("=" * full + ">")[:BAR].ljust(BAR)
    return f"{text} [{bar}] {size(layer.done)}/{size(layer.total)}"


def _short(layer: wire.Layer) -> str:
    return layer.digest.partition(":")[2][:12] or layer.digest[:12]
