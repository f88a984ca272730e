"""Hooks of CDI devices: which are refused, and the bundle in which the others run."""

from __future__ import annotations

import os

from phantom_cri import codec
from phantom_cri.errors import FailedPrecondition, Unimplemented
from phantom_cri.model import ContainerRecord, InjectedHook
from phantom_cri.plans.spec import Hooks, Process
from phantom_cri.requests import oci


def check_hook(hook: InjectedHook) -> None:
    """Refuse a hook: without it a device would only seem to work. Raises Unimplemented, FailedPrecondition.

    Vendors use createContainer now; the other kinds expect the process of another runtime.
    """
    field = f"CDI device injection failed: hook {hook.name} {hook.path}"
    if hook.name != "createContainer":
        raise Unimplemented(f"{field}: only createContainer hooks are supported")
    if not os.access(hook.path, os.X_OK) or os.path.isdir(hook.path):
        raise FailedPrecondition(f"{field}: is not a program on this node")


def hooks_of(record: ContainerRecord, process: Process, folder: str) -> Hooks | None:
    """The hooks of its CDI devices; creates the bundle that they run in, below `folder`. Idempotent."""
    if record.injection is None or not record.injection.hooks:
        return None
    bundle = _make_bundle(folder, record, process)
    return Hooks(record.injection.hooks, _hook_state(record, bundle), bundle)


def _make_bundle(folder: str, record: ContainerRecord, process: Process) -> str:
    """Create an OCI bundle below `folder`, in which hooks look up the root's path. Idempotent.

    Its `rootfs` is only mounted in the mount namespace of the container's start.
    """
    bundle = os.path.join(folder, "bundle")
    os.makedirs(os.path.join(bundle, "rootfs"), mode=0o700, exist_ok=True)
    config = {
        "ociVersion": oci.VERSION,
        "root": {"path": "rootfs"},
        "process": oci.process_document(record, process),
        "annotations": record.config.annotations,
    }
    codec.write_atomically(os.path.join(bundle, "config.json"), codec.to_json(config))
    return bundle


def _hook_state(record: ContainerRecord, bundle: str) -> bytes:
    """A hook's stdin (OCI runtime spec, "State"); there is no process yet."""
    state = {
        "ociVersion": oci.VERSION,
        "id": record.id,
        "status": "creating",
        "bundle": bundle,
        "annotations": record.config.annotations,
    }
    return codec.to_json(state)
