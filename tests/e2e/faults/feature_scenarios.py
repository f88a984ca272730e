"""What only some ask for: ids of a pod's own, images as volumes, devices, checkpoints, and numbers."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

from phantom_cri.model import ImageSpec, Mount, SandboxSecurity
from tests.e2e.faults.scenarios import (
    OWN_IDS,
    ColdPod,
    CreateContainer,
    InContainer,
    StartUnprepared,
)

DEVICE = "vendor.com/device=0"
HOOK = """#!/bin/sh
read state
test -n "$state" -a -d /proc/self && echo hooked > rootfs/data/hooked
"""


class UserNamespacePod(ColdPod):
    variant_of = ColdPod
    fields = {"security": SandboxSecurity(namespaces=OWN_IDS)}


def describe_device(folder: Path) -> None:
    """A CDI file with all that one can ask for; `folder` holds the files."""
    folder.mkdir(exist_ok=True)
    hook = folder / "hook"
    hook.write_text(HOOK)
    hook.chmod(0o755)
    edits = {
        "env": ["DEVICE=0"],
        "additionalGids": [7],
        "deviceNodes": [{"path": "/dev/vendor0", "hostPath": "/dev/null"}],
        "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/vendor", "options": ["ro", "bind"]}],
        "hooks": [{"hookName": "createContainer", "path": str(hook), "args": ["hook"]}],
    }
    kind, _, name = DEVICE.partition("=")
    document = {
        "cdiVersion": "1.1.0",
        "kind": kind,
        "devices": [{"name": name, "containerEdits": edits}],
    }
    (folder / "vendor.json").write_text(json.dumps(document))


class CreateWithImageVolume(CreateContainer):
    variant_of = CreateContainer
    script = "cat /volume/l"

    def fields(self) -> dict[str, Any]:
        image = ImageSpec(image=self.bed.volume_image)
        return {
            "mounts": (Mount(container_path="/volume", image=image, image_sub_path="data", readonly=True),)
        }

    async def prepare(self) -> tuple[str, Any]:
        return await self.bed.run_pod(), self.bed.container(self.script, **self.fields())

    async def finish(self, thing: tuple[str, Any], result: str) -> None:
        await self.bed.verbs.start_container(result)
        container = self.bed.runtime.records.container(result)
        await container.exited.wait()
        assert container.record.exit_code == 0, "the container has what it asked for"
        await self.bed.verbs.remove_pod_sandbox(thing[0])


class CreateWithDevice(CreateWithImageVolume):
    variant_of = CreateContainer

    async def prepare(self) -> tuple[str, Any]:
        describe_device(self.bed.daemon.folder / "cdi")  # new: it is read again
        return await super().prepare()

    script = "test -c /dev/vendor0 -a -f /vendor -a $DEVICE = 0 && grep hooked /data/hooked"

    def fields(self) -> dict[str, Any]:
        return {"cdi_devices": (DEVICE,)}


class StartWithDevice(StartUnprepared):
    """With an image's volume too; the hook writes to the root."""

    variant_of = StartUnprepared

    def fields(self) -> dict[str, Any]:
        fields = super().fields()
        image = ImageSpec(image=self.bed.volume_image)
        volume = Mount(container_path="/volume", image=image, image_sub_path="data", readonly=True)
        return fields | {"mounts": (*fields["mounts"], volume), "cdi_devices": (DEVICE,)}

    async def finish(self, thing: list[str], result: None) -> None:
        script = "cat /data/hooked /volume/l; ls /dev/vendor0"
        answer = await self.bed.verbs.exec_sync(thing[1], ["sh", "-c", script], 10)
        assert answer.stdout == b"hooked\nof the image\n/dev/vendor0\n", answer
        await super().finish(thing, result)


class Checkpoint(InContainer):
    """What fails leaves no file, and nothing that stands still."""

    slow = True

    @property
    def location(self) -> Path:
        return self.bed.daemon.root / "checkpoint.tar"  # where all that is left is noticed

    async def prepare(self) -> tuple[str, str]:
        pod = await self.bed.run_pod()
        container = await self.bed.run_container(pod)
        # CRIU mounts things at folders that it makes in /tmp, which copies that up.
        await self.bed.verbs.exec_sync(container, ["touch", "/tmp/file"], 10)
        return pod, container

    async def act(self, thing: tuple[str, str]) -> None:
        await self.bed.verbs.checkpoint_container(thing[1], str(self.location), 0)

    async def again(self, thing: tuple[str, str]) -> None:
        answer = await self.bed.verbs.exec_sync(thing[1], ["true"], 5)
        assert answer.exit_code == 0
        await self.act(thing)

    async def was_done(self, thing: tuple[str, str]) -> bool:
        return self.location.exists()

    async def finish(self, thing: tuple[str, str], result: None) -> None:
        with tarfile.open(self.location) as archive:
            assert {"config.dump", "checkpoint/inventory.img", "rootfs-diff.tar"} <= set(archive.getnames())
        os.unlink(self.location)
        await super().finish(thing, result)


class Numbers(InContainer):
    """Stats and metrics of one pod and its container."""

    slow = True

    async def act(self, thing: tuple[str, str]) -> tuple[Any, Any, int]:
        verbs = self.bed.verbs
        of_pod = await verbs.pod_sandbox_stats(thing[0])
        (of_container,) = await verbs.list_container_stats(container_id=thing[1])
        return of_pod, of_container, len(list(await verbs.pod_sandbox_metrics()))

    async def finish(self, thing: tuple[str, str], result: tuple[Any, Any, int]) -> None:
        of_pod, of_container, pods = result
        assert (of_pod.record.id, of_container.record.id, pods) == (*thing, 1)
        await super().finish(thing, result)
