"""CreateContainer: resolve the image and the user, check everything, make the snapshot, record."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator, Sequence

from phantom_cri import cdi, codec, images, requests
from phantom_cri.errors import AlreadyExists, FailedPrecondition, NotFound
from phantom_cri.lifecycle import confinement, labelling, prepare, states
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.log_file import log_path
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.model import ContainerConfig, ContainerRecord, Image, ImageMount, Injection
from phantom_cri.policy import reference
from phantom_cri.undo import Undo


async def create_container(runtime: Runtime, sandbox_id: str, config: ContainerConfig) -> str:
    stages = runtime.stages("create")
    injection = await find_injection(runtime, config)  # no await between the check of the pod and the record
    pod = runtime.records.pod(sandbox_id)
    states.next_sandbox_state(pod.record.state, "create container in", pod.id)
    pod.check_version()
    again = twin(runtime, pod, config)
    if again is not None:
        return again
    with stages.stage("image"):
        driver = runtime.handler_of(pod).driver
        image = find_image(runtime, config, driver)
        record = record_of(runtime, pod, config, image, driver)
        if injection is not None:
            record = requests.injected(record, injection)
    resolved = runtime.driver_of(record).resolve(record, pod.record)
    runtime.cgroups.check(record.resources)
    policy = confinement.decide(runtime, pod, record)
    record = codec.replace(record, policy=reference(policy))
    async with Undo("CreateContainer") as undo:
        with stages.stage("record"):
            container = Container(record, policy=policy, resolved=resolved)
            undo.push("record", lambda: runtime.records.forget_container(container))
            runtime.records.intend_container(record)
        with stages.stage("snapshot"):
            undo.push("snapshot", lambda: runtime.images.drop_snapshot(record.id))
            snapshot = runtime.images.snapshot(record.id, image.id, record.image_mounts)
            give_to_pod(pod, snapshot.upper)
            await seed_volumes(record.layers, resolved.volumes, snapshot.folder)
            if record.selinux is not None:
                volumes = resolved.volumes
                await labelling.label_sources(runtime, record, volumes, record.selinux, snapshot.folder)
        states.next_sandbox_state(pod.record.state, "create container in", pod.id)  # it may have been stopped
        twin(runtime, pod, config)  # the name may be in use by now
        with stages.stage("record"):
            confinement.keep(runtime, policy)
            runtime.records.commit_container(pod, container)
        undo.keep()
    runtime.observe(pod, stages)
    runtime.events.emit("created", pod, container.id)
    prepare.begin(runtime, pod, container)
    requests.warn_unsupported(
        "container", record.id, config.annotations, shapes_traffic=runtime.shapes_traffic
    )
    log.info(
        "container %s created in pod sandbox %s",
        record.id,
        pod.id,
        extra={"sandbox_id": pod.id, "container_id": record.id},
    )
    return record.id


def twin(runtime: Runtime, pod: Pod, config: ContainerConfig) -> str | None:
    """The container that the same request created before a crash; AlreadyExists if the name is in use."""
    for container in pod.containers.values():
        if container.record.config.metadata != config.metadata:
            continue
        if container.record.config == config and runtime.records.sent_again(container.id):
            return container.id
        raise AlreadyExists(
            f"config.metadata: name {config.metadata.name!r}, attempt {config.metadata.attempt} "
            f"is taken by container {container.id}"
        )
    return None


async def find_injection(runtime: Runtime, config: ContainerConfig) -> Injection | None:
    """What the CDI devices of a request add; None if it has none.

    Raises InvalidArgument, FailedPrecondition, Unimplemented.
    """
    names = cdi.requested(config.cdi_devices, config.annotations)
    if not names:
        return None
    found = await asyncio.to_thread(runtime.cdi.injection, names)
    for hook in found.hooks:
        requests.check_hook(hook)
    return found


def find_image(runtime: Runtime, config: ContainerConfig, driver: str) -> Image:
    image = runtime.images.find(config.image.image)
    if image is None:
        raise NotFound(f"image {config.image.image!r} not found: pull it first")
    try:
        runtime.drivers[driver].check_image(image, config.annotations)
    except FailedPrecondition as error:
        raise FailedPrecondition(f"image {config.image.image!r}: {error}") from None
    return image


def record_of(
    runtime: Runtime, pod: Pod, config: ContainerConfig, image: Image, driver: str
) -> ContainerRecord:
    security = config.security
    layers = runtime.images.layers(image.id)
    container_id = secrets.token_hex(32)
    return ContainerRecord(
        id=container_id,
        sandbox_id=pod.id,
        config=config,
        image_id=image.id,
        image_ref=image.repo_digests[0] if image.repo_digests else image.id,
        image_name=config.image.user_specified_image
        or (image.repo_tags[0] if image.repo_tags else config.image.image),
        created_at=time.time_ns(),
        image=image.config,
        log_path=log_path(pod, config),
        user=images.resolve_user(layers, image.config.user, security),
        stop_signal=config.stop_signal or requests.signal_name(image.config.stop_signal or "SIGTERM"),
        cgroup=runtime.cgroups.member(pod.record.cgroup_parent, container_id),
        resources=config.resources,
        layers=layers,
        image_mounts=tuple(mounted_images(runtime, config)),
        selinux=runtime.selinux.of_container(pod.record.selinux, security),
        driver=driver,
    )


def mounted_images(runtime: Runtime, config: ContainerConfig) -> Iterator[ImageMount]:
    """Resolves each mount of an image; the kubelet checks the first word of the message."""
    for index, mount in enumerate(config.mounts):
        if mount.image is None:
            continue
        try:
            yield runtime.images.mount(mount.image.image, mount.image_sub_path)
        except (NotFound, FailedPrecondition) as error:
            raise type(error)(f"ImageVolumeMountFailed: config.mounts[{index}].image: {error}") from None


def give_to_pod(pod: Pod, upper: str) -> None:
    """Give the container's `/` the image's owner, mapped to the pod's user namespace."""
    ids = requests.pod_ids(pod.record.config.security.namespaces)
    if ids is None:
        return
    of_image = os.stat(upper)
    uid, gid = ids.host_uid(of_image.st_uid), ids.host_gid(of_image.st_gid)
    os.chown(upper, *ids.root if uid is None or gid is None else (uid, gid))


async def seed_volumes(layers: tuple[str, ...], volumes: Sequence[str], folder: str) -> None:
    """Fill the image's anonymous volumes with its content at that path, as Docker does."""
    for path in volumes:
        target = os.path.join(folder, requests.volume_folder(path))
        os.mkdir(target, 0o755)
        await asyncio.to_thread(images.seed_volume, layers, path, target)
