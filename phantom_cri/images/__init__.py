"""Images: pulling, storing, unpacking and looking up.

The rest of the runtime uses `ImageService`, `resolve_user` and `seed_volume`.
"""

from __future__ import annotations

from phantom_cri.images.install import LayerReport, LayerState
from phantom_cri.images.limits import Limits
from phantom_cri.images.service import ImageService, ImageStatistics
from phantom_cri.images.snapshots import Snapshot
from phantom_cri.images.users import resolve_user
from phantom_cri.images.volumes import seed_volume

__all__ = [
    "ImageService",
    "ImageStatistics",
    "LayerReport",
    "LayerState",
    "Limits",
    "Snapshot",
    "resolve_user",
    "seed_volume",
]
