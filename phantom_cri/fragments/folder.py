"""A fragment's folder: lets a later daemon identify the fragment."""

from __future__ import annotations

import asyncio
import logging
import os
import time

from phantom_cri import codec
from phantom_cri.codec import Document
from phantom_cri.errors import NotFound, PhantomError
from phantom_cri.fragments.client import FragmentClient
from phantom_cri.fragments.features import OtherVersion
from phantom_cri.fragments.handle import END_TIMEOUT, FragmentHandle
from phantom_cri.fragments.message import Exit
from phantom_cri.fragments.processes import open_process
from phantom_cri.fragments.spawn import SOCKET
from phantom_cri.model import ProcessRef

log = logging.getLogger(__name__)

_PROCESS = "fragment.json"

KILLED = 137  # 128 + SIGKILL


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


class ExitFile(Document, frozen=True):
    """exits/CONTAINER of a fragment's folder as the fragment writes it (native/exit_record.c)."""

    exit_code: int
    signal: int = 0
    oom: bool = False
    started_at: int = 0
    finished_at: int = 0


def exit_path(folder: str, container_id: str) -> str:
    return os.path.join(folder, "exits", container_id)


def stored_exit(folder: str, container_id: str) -> Exit:
    """The exit as recorded by the fragment, else as killed with its pod."""
    try:
        with open(exit_path(folder, container_id), "rb") as file:
            said = codec.from_json(file.read(), ExitFile)
    except (OSError, codec.DecodeError):
        return Exit(code=KILLED, signal=9, finished_at=time.time_ns())
    return Exit(
        code=said.exit_code,
        signal=said.signal,
        oom=said.oom,
        started_at=said.started_at,
        finished_at=said.finished_at,
    )


async def find_fragment(folder: str) -> FragmentHandle | None:
    """The folder's fragment, connected; one that does not answer is killed."""
    process = stored_process(folder)
    if process is None:
        await end_stranger(folder)
        return None
    try:
        fragment = FragmentHandle(os.path.basename(folder), folder, process, open_process(process))
    except NotFound:
        return None
    try:
        await fragment.connect()
    except OtherVersion as error:
        log.error("pod sandbox %s keeps running but can only be stopped and removed: %s", fragment.id, error)
    except PhantomError as error:
        log.warning("fragment of pod sandbox %s does not answer and will be killed: %s", fragment.id, error)
        await fragment.end()
        return None
    return fragment


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
