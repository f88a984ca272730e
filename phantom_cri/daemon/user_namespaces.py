"""Whether pods can have user namespaces on this node: tested by preparing a container in one."""

from __future__ import annotations

import asyncio
import os
import secrets

from phantom_cri import fragments, plans
from phantom_cri.errors import PhantomError
from phantom_cri.images import Snapshot
from phantom_cri.lifecycle.cleanup import remove_folder
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.model import User
from phantom_cri.plans import Bind, ContainerSpec, Namespaces, OverlayRoot, PodIds, Process
from phantom_cri.undo import Undo

_IDS = PodIds(uid=1 << 16, uid_count=1 << 16, gid=1 << 16, gid_count=1 << 16)


async def unavailable_reason(runtime: Runtime) -> str:
    """Why pods cannot have them, or "". Takes some 5 ms; leaves nothing behind."""
    try:
        await _try(runtime)
    except (PhantomError, OSError) as error:
        log.info("user namespaces are not available, pods that request one will be refused: %s", error)
        return str(error)
    return ""


async def _try(runtime: Runtime) -> None:
    """Prepare a container in a user namespace; its layers, upper folder and volume are in the folders where
    those of real ones will."""
    trial = secrets.token_hex(32)
    folder = runtime.records.pod_folder(trial)
    async with Undo("the trial of a user namespace") as undo:
        undo.push("folder", lambda: remove_folder(folder))
        undo.push("snapshot", lambda: runtime.images.drop_snapshot(trial))
        wanted = _container(runtime.images.snapshot_of(trial, ()))
        spawned = await fragments.spawn(folder, plans.CLONE_NEWNS | plans.CLONE_NEWPID)
        undo.push("fragment", lambda: asyncio.to_thread(fragments.end, spawned.pidfd))
        fragment = fragments.FragmentClient.connect(
            os.path.join(folder, fragments.SOCKET), lambda event: None
        )
        undo.push("connection", fragment.close)
        await fragment.adopt(plans.user_namespace_plan(_IDS))
        with plans.Donations() as donations:
            donations.lend("host_mounts", runtime.host_mounts)
            plan = plans.container_plan(wanted, donations.names(), hold=True)
            (await fragment.prepare(trial, plan, donations)).close()


def _container(snapshot: Snapshot) -> ContainerSpec:
    volume = os.path.join(snapshot.folder, "volume")
    for path in (snapshot.upper, snapshot.work, volume):
        os.makedirs(path, 0o755)
    os.chown(snapshot.upper, *_IDS.root)
    return ContainerSpec(
        process=Process(args=("/trial",), env=(), cwd="/"),
        user=User(),
        root=OverlayRoot(snapshot.lower, snapshot.upper, snapshot.work),
        namespaces=Namespaces(user=_IDS),
        mounts=(Bind(volume, "/volume", is_mapped=True),),
    )
