"""A running container's memory and files in one archive: CRIU's images and their metadata."""

from phantom_cri.checkpoint.archive import write_archive
from phantom_cri.checkpoint.criu import Criu

__all__ = ["Criu", "write_archive"]
