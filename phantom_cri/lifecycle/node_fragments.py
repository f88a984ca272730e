"""Starts fragments with their network for pools and pods, and ends unused ones."""

from __future__ import annotations

import asyncio
import os
import secrets

from phantom_cri import fragments, plans
from phantom_cri.errors import PhantomError
from phantom_cri.fragments.folder import note_process
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.lifecycle.cleanup import remove_folder
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.pools import Profile
from phantom_cri.undo import Undo


async def spawn(runtime: Runtime, profile: Profile, ids: plans.PodIds | None = None) -> FragmentHandle:
    """Start a fragment with its network; `ids`: with a user namespace, for one pod."""
    fragment_id = secrets.token_hex(32)
    folder = runtime.records.pod_folder(fragment_id)
    async with Undo("start of a fragment") as undo:
        os.makedirs(os.path.join(folder, "containers"), mode=0o711)
        undo.push("folder", lambda: remove_folder(folder))
        home = runtime.fragments_cgroup
        spawned = await fragments.spawn(folder, clone_flags(profile, ids), cgroup_fd=home.clone_into)
        undo.push("process", lambda: asyncio.to_thread(fragments.end, spawned.pidfd))
        fragment = FragmentHandle(fragment_id, folder, spawned.process, spawned.pidfd)
        undo.take_over("process", "fragment", fragment.end)
        fragment.pool = profile.name
        note_process(folder, spawned.process)
        await fragment.connect()
        if ids:
            await fragment.client.adopt(plans.user_namespace_plan(ids))
        batch = b""
        if not profile.host_network:
            undo.push("network", lambda: runtime.network.release(fragment_id))
            batch = await wire(runtime, fragment, ahead=bool(profile.name))
        # A pod with a user namespace needs its own /sys and other owners in /dev. With SELinux,
        # mounts are labelled for their pod.
        template = not profile.host_ipc and ids is None and runtime.selinux.contexts is None
        with plans.Donations() as donations:
            for index, procs in enumerate(home.procs):
                donations.lend(f"procs{index}", procs)
            plan = plans.spawn_plan(
                batch,
                len(home.procs),
                ipv6=any(":" in ip for ip in fragment.ips),
                template=template,
                ids=ids,
            )
            await fragment.client.adopt(plan, donations)
            fragment.has_template = template
        undo.keep()
    return fragment


async def wire(runtime: Runtime, fragment: FragmentHandle, *, ahead: bool) -> bytes:
    """Connect the fragment's network namespace; returns what it must send from inside."""
    attachment = await runtime.network.attach(
        fragment.id, f"/proc/{fragment.process.pid}/ns/net", ahead=ahead
    )
    fragment.ips = attachment.ips
    return attachment.pod_batch


async def end(runtime: Runtime, fragment: FragmentHandle) -> None:
    """End a fragment that no pod uses and release its resources; idempotent."""
    await fragment.end()
    try:
        await runtime.network.release(fragment.id)
    except PhantomError as error:  # the driver retries
        log.warning(
            "failed to release the network of unused fragment %s, retrying later: %s", fragment.id, error
        )
    remove_folder(fragment.folder)


def clone_flags(profile: Profile, ids: plans.PodIds | None) -> int:
    """The namespaces that a fragment of this profile gets; with a user namespace it gets the others later."""
    if ids:
        return plans.CLONE_NEWNS | plans.CLONE_NEWPID
    flags = plans.CLONE_NEWNS
    if not profile.host_network:
        # CRI: a pod on the host's network also has the host's name.
        flags |= plans.CLONE_NEWNET | plans.CLONE_NEWUTS
    if not profile.host_pid:
        flags |= plans.CLONE_NEWPID
    if not profile.host_ipc:
        flags |= plans.CLONE_NEWIPC
    return flags
