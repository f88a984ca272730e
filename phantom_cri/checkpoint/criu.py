"""Runs CRIU (criu(8)): checks whether it works on this node, and dumps one process tree."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Sequence
from pathlib import Path

from phantom_cri.errors import FailedPrecondition, ResourceExhausted, Unimplemented

LOG = "dump.log"
_ERROR = re.compile(r"^(?:\([\d.]+\) )?Error \([^)]*\): (.*)$", re.MULTILINE)
_IGNORED = "Can't setup RLIMIT_NOFILE"


class Criu:
    def __init__(self, program: str) -> None:
        """`program`: a path, or a name to look up in PATH."""
        self._program = program
        self._works: bool = False

    async def require(self) -> None:
        """Raises Unimplemented with the reason if `criu check` fails; a success is remembered."""
        if self._works:
            return
        if why := await self._check():
            raise Unimplemented(f"checkpoints need CRIU, and `criu check` fails: {why}")
        self._works = True

    async def dump(
        self,
        pid: int,
        folder: Path,
        shared: Sequence[str],
        mounts: Sequence[str],
        freezer: str,
        is_abandoned: Callable[[], bool],
    ) -> None:
        """Write the images of `pid` and its descendants into `folder`; the processes keep running.

        `shared`: those of "net" and "pid" that the container shares: their content is not dumped.
        `mounts`: mount points of outside file systems: a restore has to provide them.
        `freezer`: folder of its frozen cgroup, which stays frozen. A cancelled caller waits for the end: a
        killed CRIU leaves its code in the processes. It is killed only if `is_abandoned` says that they die
        too. Raises FailedPrecondition, or ResourceExhausted on a full disk, with CRIU's own message.
        """
        outside = [f"--external={kind}[{_namespace(pid, kind)}]:{kind}" for kind in shared]
        outside += [f"--external=mnt[{path}]:{path}" for path in mounts]
        process = await self._start(
            "dump",
            f"--tree={pid}",
            f"--images-dir={folder}",
            f"--log-file={LOG}",
            "--verbosity=2",
            f"--freeze-cgroup={freezer}",
            "--external=mnt[]",  # whole file systems of the host, as CRIU finds them
            "--manage-cgroups=ignore",
            "--leave-running",
            "--tcp-established",
            "--ext-unix-sk",
            "--file-locks",
            "--shell-job",  # the terminal's master is outside
            *outside,
        )
        output = asyncio.ensure_future(process.communicate())
        cancelled = False
        while not output.done():
            try:
                await asyncio.wait([output])
            except asyncio.CancelledError:
                cancelled = True
                if is_abandoned():
                    _kill(process)
        if cancelled:
            raise asyncio.CancelledError
        if process.returncode:
            said = output.result()[0].decode(errors="replace").strip()
            why = f"criu dump of process {pid}: {_why(folder / LOG) or said}"
            raise ResourceExhausted(why) if os.strerror(errno.ENOSPC) in why else FailedPrecondition(why)

    async def _check(self) -> str:
        """Why `criu check` fails; "" if it succeeds."""
        try:
            process = await self._start("check")
        except OSError as error:
            return f"{self._program}: {error.strerror}"
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                _kill(process)
                await process.wait()
        lines = output.decode(errors="replace").strip().splitlines()
        return "" if process.returncode == 0 else lines[-1] if lines else f"exit status {process.returncode}"

    async def _start(self, *arguments: str) -> Process:
        return await asyncio.create_subprocess_exec(
            self._program, *arguments, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _namespace(pid: int, kind: str) -> int:
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


def _why(log: Path) -> str:
    """The first errors of CRIU's log; later ones are consequences."""
    with contextlib.suppress(OSError):
        found = [text for text in _ERROR.findall(log.read_text(errors="replace")) if _IGNORED not in text]
        return "; ".join(found[:3])
    return ""
