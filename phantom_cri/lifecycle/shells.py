"""Fragments as the pools and pods get them: born wired, ended without a trace."""

from __future__ import annotations

import asyncio
import os
import secrets

from phantom_cri import fragments, plans
from phantom_cri.errors import PhantomError
from phantom_cri.fragments.folder import note_process
from phantom_cri.fragments.handle import Shell
from phantom_cri.lifecycle.cleanup import remove_folder
from phantom_cri.lifecycle.node import Node, log
from phantom_cri.lifecycle.undo import Undo
from phantom_cri.pools import Profile


async def birth(node: Node, profile: Profile, ids: plans.PodIds | None = None) -> Shell:
    """A warm fragment, its network wired; `ids`: with the user namespace of the one pod that it is for."""
    shell_id = secrets.token_hex(32)
    folder = node.records.pod_folder(shell_id)
    async with Undo("birth of a fragment") as undo:
        os.makedirs(os.path.join(folder, "containers"), mode=0o711)
        undo.push("folder", lambda: remove_folder(folder))
        home = node.home_cgroup
        born = await fragments.spawn(folder, clone_flags(profile, ids), cgroup_fd=home.clone_into)
        undo.push("process", lambda: asyncio.to_thread(fragments.end, born.pidfd))
        shell = Shell(shell_id, folder, born.process, born.pidfd)
        undo.take_over("process", "fragment", shell.end)
        shell.pool = profile.name
        note_process(folder, born.process)
        await shell.connect()
        if ids:
            await shell.fragment.adopt(plans.user_namespace_plan(ids))
        batch = b""
        if not profile.host_network:
            undo.push("network", lambda: node.network.release(shell_id))
            batch = await wire(node, shell, ahead=bool(profile.name))
        # A user namespace's pod needs a /sys of its own, and the owners in /dev are others. With SELinux
        # mounts are labelled for their pod.
        template = not profile.host_ipc and ids is None and node.selinux.contexts is None
        with plans.Donations() as donations:
            for index, procs in enumerate(home.procs):
                donations.lend(f"procs{index}", procs)
            plan = plans.birth_plan(
                batch,
                len(home.procs),
                ipv6=any(":" in ip for ip in shell.ips),
                template=template,
                ids=ids,
            )
            await shell.fragment.adopt(plan, donations)
            shell.has_template = template
        undo.keep()
    return shell


async def wire(node: Node, shell: Shell, *, ahead: bool) -> bytes:
    """Connect the fragment's network namespace; returns what it must send from inside."""
    attachment = await node.network.attach(shell.id, f"/proc/{shell.process.pid}/ns/net", ahead=ahead)
    shell.ips = attachment.ips
    return attachment.pod_batch


async def end(node: Node, shell: Shell) -> None:
    """End a fragment that no pod uses and give back all it had; idempotent."""
    await shell.end()
    try:
        await node.network.release(shell.id)
    except PhantomError as error:  # the driver remembers, and tries again
        log.warning("the network of unused fragment %s is not given back yet: %s", shell.id, error)
    remove_folder(shell.folder)


def clone_flags(profile: Profile, ids: plans.PodIds | None) -> int:
    """The namespaces that a fragment of this profile is born in; those of a user namespace come with that."""
    if ids:
        return plans.CLONE_NEWNS | plans.CLONE_NEWPID
    flags = plans.CLONE_NEWNS
    if not profile.host_network:
        # CRI: a pod on the host's network has the host's name too.
        flags |= plans.CLONE_NEWNET | plans.CLONE_NEWUTS
    if not profile.host_pid:
        flags |= plans.CLONE_NEWPID
    if not profile.host_ipc:
        flags |= plans.CLONE_NEWIPC
    return flags
