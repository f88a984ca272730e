"""A container as an OCI runtime spec, which hooks and checkpoint tools expect."""

from __future__ import annotations

from phantom_cri.model import ContainerRecord
from phantom_cri.plans.spec import Process

VERSION = "1.2.0"


def process_document(record: ContainerRecord, process: Process) -> dict[str, object]:
    """The spec's `process`, as far as it is known before the start."""
    user = record.user
    return {
        "args": process.args,
        "env": process.env,
        "cwd": process.cwd,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
    }
