"""Limits per image and per layer, well above those of real images."""

from __future__ import annotations

from phantom_cri.codec import Record


class Limits(Record, frozen=True):
    """Bytes and counts; a pull or load that exceeds one fails with ResourceExhausted.

    `layer_bytes` counts the uncompressed stream and the holes of sparse files, against compression bombs.
    """

    layer_bytes: int = 64 << 30
    layer_entries: int = 4_000_000
    layers: int = 499  # overlayfs stacks 500 (OVL_MAX_STACK), of which one has mount points
    manifest_bytes: int = 4 << 20
    config_bytes: int = 16 << 20
    progress_timeout_s: float = 300.0
    """Seconds that a download may take without a byte, including retries; 0: no limit."""
    shared_progress_s: float = 10.0
    """Seconds after which a pull that waits for another's download starts its own if that got less than 1 MiB
    in this time."""
