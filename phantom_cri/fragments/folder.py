"""A fragment's folder: lets a later daemon identify the fragment."""

from __future__ import annotations

import asyncio
import logging
import os

from phantom_cri import codec
from phantom_cri.errors import PhantomError
from phantom_cri.fragments.client import FragmentClient
from phantom_cri.fragments.handle import END_TIMEOUT
from phantom_cri.fragments.spawn import SOCKET
from phantom_cri.model import ProcessRef

log = logging.getLogger(__name__)

_PROCESS = "fragment.json"


def note_process(folder: str, process: ProcessRef) -> None:
    """Store the process for `stored_process` of a later daemon. Raises OSError."""
    codec.write_atomically(os.path.join(folder, _PROCESS), codec.to_json(process))


def stored_process(folder: str) -> ProcessRef | None:
    """The process of this folder's fragment, as stored at its start; None if it was not stored."""
    try:
        with open(os.path.join(folder, _PROCESS), "rb") as file:
            return codec.from_json(file.read(), ProcessRef)
    except (FileNotFoundError, codec.DecodeError):
        return None


async def end_stranger(folder: str) -> None:
    """Shut down, through its socket, a fragment that was started but not stored, if there is one."""
    gone = asyncio.Event()
    try:
        fragment = FragmentClient.connect(os.path.join(folder, SOCKET), lambda event: gone.set())
    except PhantomError:
        return
    try:
        async with asyncio.timeout(END_TIMEOUT):
            await fragment.shutdown()
            await gone.wait()
    except (TimeoutError, PhantomError):
        log.warning("failed to shut down a fragment of an earlier daemon in %s", folder)
    finally:
        fragment.close()
