"""Fragments as the pools and pods know them: born wired, ended without a trace."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable

from phantom_cri.launch import CloneFlags, Fragment, LaunchError, spawn, wire_plan
from phantom_cri.lifecycle.live import Shell
from phantom_cri.lifecycle.node import Node
from phantom_cri.lifecycle.undo import Undo
from phantom_cri.pools import Profile

END_TIMEOUT = 5.0
"""Seconds that a fragment gets to end its processes by itself before it is killed."""

CHECK_TIMEOUT = 2.0
"""Seconds within which an idle fragment must answer a health check."""


async def birth(node: Node, profile: Profile, watch: Callable[[Shell], None]) -> Shell:
    """A warm fragment with its network wired. `watch` is told of the shell before it can die."""
    shell_id = secrets.token_hex(32)
    folder = node.records.pod_folder(shell_id)
    async with Undo("birth of a fragment") as undo:
        os.makedirs(os.path.join(folder, "containers"), mode=0o711)
        undo.push("folder", lambda: shutil.rmtree(folder))
        fragment = await spawn(folder, shell_id, clone_flags(profile))
        undo.push("fragment", lambda: end_fragment(fragment))
        shell = Shell(id=shell_id, folder=folder, fragment=fragment, pool=profile.name)
        if not profile.host_network:
            undo.push("network", lambda: node.network.release(shell_id))
            shell.ips = await wire(node, shell)
        watch(shell)
        undo.keep()
    return shell


async def wire(node: Node, shell: Shell) -> tuple[str, ...]:
    """Connect the fragment's network namespace; returns the pod's addresses."""
    namespace = os.open(f"/proc/{shell.process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        attachment = await node.network.attach(shell.id, namespace)
    finally:
        os.close(namespace)
    await shell.fragment.adopt(wire_plan(attachment.pod_batch))
    return attachment.ips


async def end_shell(node: Node, shell: Shell) -> None:
    """End a fragment that no pod uses and give back all it had; idempotent."""
    await end_fragment(shell.fragment)
    await node.network.release(shell.id)
    await asyncio.to_thread(shutil.rmtree, shell.folder, ignore_errors=True)


async def end_fragment(fragment: Fragment) -> None:
    """Let it kill and reap its processes and flush their logs, then be sure that it is gone."""
    if fragment.alive:
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await fragment.shutdown()
                await fragment.wait_dead()
        except (TimeoutError, LaunchError, OSError):
            fragment.kill()
            await fragment.wait_dead()
    fragment.close()


async def check(shell: Shell) -> bool:
    """Whether an idle fragment still answers."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await shell.fragment.hello()
    except (TimeoutError, LaunchError, OSError):
        return False
    return True


def clone_flags(profile: Profile) -> int:
    """The namespaces that a fragment of this profile is born in."""
    flags = CloneFlags.NEWNS
    if not profile.host_network:
        # CRI: a pod on the host's network has the host's name too.
        flags |= CloneFlags.NEWNET | CloneFlags.NEWUTS
    if not profile.host_pid:
        flags |= CloneFlags.NEWPID
    if not profile.host_ipc:
        flags |= CloneFlags.NEWIPC
    return int(flags)
