"""`vendor.com/class=device`, and the two ways to name devices in a request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from phantom_cri.errors import InvalidArgument

ANNOTATION_PREFIX = "cdi.k8s.io/"

_VENDOR_OR_CLASS = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_SHOWN = 200


def is_kind(text: str) -> bool:
    """Whether `text` is `vendor/class`."""
    vendor, slash, class_ = text.partition("/")
    return bool(slash and _VENDOR_OR_CLASS.fullmatch(vendor) and _VENDOR_OR_CLASS.fullmatch(class_))


def is_device(text: str) -> bool:
    """Whether `text` is the name of a device within its kind."""
    return _DEVICE.fullmatch(text) is not None


def is_qualified(text: str) -> bool:
    kind, equals, device = text.partition("=")
    return bool(equals) and is_kind(kind) and is_device(device)


def requested(names: Sequence[str], annotations: Mapping[str, str]) -> tuple[str, ...]:
    """The requested devices without duplicates: first those of CDI_devices, then those of annotations.

    Device plugins older than that field set annotations `cdi.k8s.io/…` to a comma-separated list.
    Raises InvalidArgument naming the field or the annotation, and the invalid name.
    """
    found = dict.fromkeys(_checked("CDI_devices", names))
    for key in sorted(annotations):
        if key.startswith(ANNOTATION_PREFIX):
            found |= dict.fromkeys(_checked(f"annotations[{key[:_SHOWN]!r}]", annotations[key].split(",")))
    return tuple(found)


def _checked(field: str, names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if not is_qualified(name):
            raise InvalidArgument(f"{field}: {name[:_SHOWN]!r} is not a qualified name, vendor/class=device")
    return names
