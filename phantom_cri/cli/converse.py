"""A session on the user's side: input, output, the terminal's size, and restoring the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
from argparse import Namespace
from typing import Any

from phantom_cri.cli import terminal
from phantom_cri.cli.failure import Failure
from phantom_cri.cli.streams import Ended, Streams, input_pieces

STDIN = 0

REDRAW_S = 0.05
"""Seconds with a wrong terminal size, so that the program notices it and draws its prompt again."""


def check_terminal(args: Namespace) -> None:
    """Raises Failure for -t without a terminal: the program would wait for input that cannot be typed."""
    if args.tty and args.interactive and not os.isatty(STDIN):
        raise Failure("the input device is not a TTY: omit -t")


async def converse(
    streams: Streams, *, interactive: bool, tty: bool, detachable: bool = False, redraw: bool = False
) -> Ended | None:
    """Copy input, output and the terminal's size until the session ends; None: the user has detached.

    The terminal is restored afterwards, also after an error or a signal.
    """
    with contextlib.ExitStack() as undo:
        keys = terminal.DetachKeys() if detachable and tty else None
        if tty and os.isatty(STDIN):
            if interactive:
                undo.enter_context(terminal.raw(STDIN))
            undo.enter_context(terminal.on_resize(lambda: streams.resize(*terminal.size(STDIN))))
            await _send_size(streams, redraw=redraw)
        receiving = asyncio.create_task(streams.receive())
        feeding = asyncio.create_task(_feed(streams, keys)) if interactive else None
        try:
            waited = {task for task in (receiving, feeding) if task}
            while not receiving.done():
                done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if feeding in done and feeding.result():
                    return None
            return receiving.result()
        finally:
            await _stop(receiving, feeding)


async def _send_size(streams: Streams, *, redraw: bool) -> None:
    """`redraw`: attached later, the prompt only appears if the program notices a new size."""
    width, height = terminal.size(STDIN)
    if redraw:
        streams.resize(width, height + 1)
        await asyncio.sleep(REDRAW_S)
    streams.resize(width, height)


async def _feed(streams: Streams, keys: terminal.DetachKeys | None) -> bool:
    """Whether the user has detached; False: the input has ended, and the container's was closed."""
    async for piece in input_pieces(STDIN):
        passed, detached = keys.pass_on(piece) if keys else (piece, False)
        if passed:
            await streams.send_input(passed)
        if detached:
            return True
    streams.end_input()
    return False


async def _stop(*tasks: asyncio.Task[Any] | None) -> None:
    running = [task for task in tasks if task]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
