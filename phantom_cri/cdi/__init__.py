"""Container Device Interface: devices that vendors describe in files, requested by qualified name.

`requested` returns the devices that a container asks for, `Registry.injection` what they add to it. Source:
the CDI specification up to 1.1.0; no Python library exists, so its rules are implemented here.
"""

from __future__ import annotations

from phantom_cri.cdi.names import requested
from phantom_cri.cdi.registry import Registry

__all__ = ["Registry", "requested"]
