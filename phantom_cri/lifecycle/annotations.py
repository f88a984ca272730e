"""Annotations by which the peers' users ask for things that nothing here does: told, not dropped silently."""

from __future__ import annotations

import re
from collections.abc import Mapping

from phantom_cri.lifecycle.runtime import Runtime, log

_OF_THE_PEERS = re.compile(
    r"(?:rdt|blockio)\.resources\.beta\.kubernetes\.io/"  # classes of service, containerd and CRI-O
    r"|io\.kubernetes\.cri-o\.|[a-z-]+\.crio\.io(?:/|$)"  # CRI-O's allowed_annotations
    r"|run\.oci\."  # crun
)
_BANDWIDTH = ("kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth")


def warn_unsupported(runtime: Runtime, kind: str, object_id: str, annotations: Mapping[str, str]) -> None:
    """One warning for a pod or container (`kind`) whose annotations ask for what it does not get."""
    unmet = [key for key in annotations if _OF_THE_PEERS.match(key)]
    if runtime.config.network.driver == "bridge":
        unmet += [key for key in _BANDWIDTH if key in annotations]
    if unmet:
        log.warning("%s %s: annotations without effect here: %s", kind, object_id, ", ".join(sorted(unmet)))
