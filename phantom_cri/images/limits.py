"""What an image may cost: limits per image or per layer that real images stay under."""

from __future__ import annotations

from phantom_cri.codec import Record


class Limits(Record, frozen=True):
    """Bytes and counts beyond which a pull or load is refused with ResourceExhausted.

    `layer_bytes` counts the uncompressed stream and the holes of sparse files, so a compression
    bomb stops there.
    """

    layer_bytes: int = 64 << 30
    layer_entries: int = 4_000_000
    layers: int = 499  # overlayfs stacks 500 (OVL_MAX_STACK), and mount points lie below the image's
    manifest_bytes: int = 4 << 20
    config_bytes: int = 16 << 20
    progress_timeout_s: float = 300.0
    """Seconds for which a download may bring no byte, its retries included; 0: for ever."""
    shared_progress_s: float = 10.0
    """Seconds after which a pull that waits for the download of another, which brings less than a MiB
    in that time, begins its own."""
