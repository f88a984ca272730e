"""Container Device Interface: devices that vendors describe in files, by their qualified names.

`requested` says which devices a container asks for, `Registry.injection` what they add to it. Facts: the
CDI specification up to 1.1.0; it has no library in this language, so its rules are here.
"""

from __future__ import annotations

from phantom_cri.cdi.names import requested
from phantom_cri.cdi.registry import Registry

__all__ = ["Registry", "requested"]
