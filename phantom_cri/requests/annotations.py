"""Annotations of other runtimes that have no effect here: logged, not dropped silently."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

log = logging.getLogger(__name__)

_OF_THE_PEERS = re.compile(
    r"(?:rdt|blockio)\.resources\.beta\.kubernetes\.io/"  # classes of service, containerd and CRI-O
    r"|io\.kubernetes\.cri-o\.|[a-z-]+\.crio\.io(?:/|$)"  # CRI-O's allowed_annotations
    r"|run\.oci\."  # crun
)
_BANDWIDTH = ("kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth")


def warn_unsupported(
    kind: str, object_id: str, annotations: Mapping[str, str], *, shapes_traffic: bool
) -> None:
    """Log one warning for a pod or container (`kind`) with annotations that are not supported.

    shapes_traffic: the network applies the bandwidths in Kubernetes' annotations.
    """
    unmet = [key for key in annotations if _OF_THE_PEERS.match(key)]
    if not shapes_traffic:
        unmet += [key for key in _BANDWIDTH if key in annotations]
    if unmet:
        log.warning("%s %s: unsupported annotations ignored: %s", kind, object_id, ", ".join(sorted(unmet)))
