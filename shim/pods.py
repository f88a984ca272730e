"""A pod's fragment: its own from its first task on, ended with its last."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable

from phantom_cri import fragments, plans
from phantom_cri.errors import InvalidArgument
from phantom_cri.fragments.folder import note_process
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.undo import Undo
from shim import spaces, wires
from shim.node import Node
from shim.oci_spec import NEW, Spaces, Wanted
from shim.records import TASKS, Pod

Obtain = Callable[[Spaces], Awaitable[FragmentHandle]]


async def begin(pod: Pod, wanted: Wanted, obtain: Obtain) -> None:
    """Get the pod a fragment as its first task wants the pod; the caller holds the pod's lock."""
    joined = spaces.to_join(wanted.spaces)
    spaces.check_identity(wanted.hostname, wanted.sysctls, wanted.spaces)
    async with Undo("start of a pod") as undo:
        fragment = await obtain(wanted.spaces)
        undo.push("fragment", lambda: end_fragment(fragment))
        await _settle(fragment, wanted, joined)
        pod.folder = fragment.folder
        pod.save()
        pod.fragment = fragment
        undo.keep()


async def spawn(node: Node, wanted: Spaces) -> FragmentHandle:
    """A fragment with the new ones of these namespaces, in its cgroup; it has joined none yet."""
    fragment_id = secrets.token_hex(16)
    folder = str(node.state / fragment_id)
    async with Undo("start of a fragment") as undo:
        os.makedirs(os.path.join(folder, TASKS), mode=0o711)
        undo.push("folder", lambda: shutil.rmtree(folder))
        os.mkdir(os.path.join(folder, wires.FOLDER), mode=0o700)
        home = node.fragments_cgroup
        spawned = await fragments.spawn(folder, spaces.clone_flags(wanted), cgroup_fd=home.clone_into)
        undo.push("process", lambda: asyncio.to_thread(fragments.end, spawned.pidfd))
        fragment = FragmentHandle(fragment_id, folder, spawned.process, spawned.pidfd)
        undo.take_over("process", "fragment", fragment.end)
        note_process(folder, spawned.process)
        await fragment.connect()
        with plans.Donations() as donations:
            for index, procs in enumerate(home.procs):
                donations.lend(f"procs{index}", procs)
            netlink = spaces.LOOPBACK_UP if wanted.network == NEW else b""
            plan = plans.spawn_plan(netlink, len(home.procs), own_network=False)
            await fragment.client.adopt(plan, donations)
        undo.keep()
    return fragment


async def _settle(fragment: FragmentHandle, wanted: Wanted, joined: dict[str, str]) -> None:
    """Into the given namespaces; then it gets the pod's name and sysctls."""
    if joined:
        with plans.Donations() as donations:
            for kind, path in joined.items():
                donations.give(kind, open_namespace(path, kind))
            plan = plans.join_plan({kind: spaces.FLAGS[kind] for kind in joined})
            await fragment.client.adopt(plan, donations)
    await fragment.client.adopt(plans.claim_plan(wanted.hostname or None, wanted.sysctls), claim=True)


def open_namespace(path: str, kind: str) -> int:
    """Raises InvalidArgument naming kind and path."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgument(f"linux.namespaces: {kind} of {path!r}: {error.strerror}") from error


async def end(pod: Pod) -> None:
    """With all that is left in it; idempotent."""
    fragment, pod.fragment = pod.fragment, None
    if fragment is not None:
        await fragment.end()
    if pod.folder:
        shutil.rmtree(pod.folder, ignore_errors=True)
        pod.folder = ""


async def end_fragment(fragment: FragmentHandle) -> None:
    """One that is no pod's; idempotent."""
    await fragment.end()
    shutil.rmtree(fragment.folder, ignore_errors=True)
