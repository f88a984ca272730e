"""Changes of a pod's or container's resource limits."""

from __future__ import annotations

from phantom_cri import codec
from phantom_cri.model import Resources


def with_changes(current: Resources, change: Resources) -> Resources:
    """`current` with every field that `change` sets (not 0, not empty).

    If only the memory limit changes, the swap beyond it stays the same: CRI's swap limit includes memory.
    """
    fields = {name: getattr(change, name) for name in change.__struct_fields__}
    changed = {name: value for name, value in fields.items() if value}
    swap = current.memory_swap_limit - current.memory_limit
    if change.memory_limit and not change.memory_swap_limit and current.memory_swap_limit > 0:
        changed["memory_swap_limit"] = change.memory_limit + swap if change.memory_limit > 0 else 0
    if change.hugepage_limits:
        sizes = {one.page_size: one for one in (*current.hugepage_limits, *change.hugepage_limits)}
        changed["hugepage_limits"] = tuple(sizes.values())
    if change.unified:
        changed["unified"] = {**current.unified, **change.unified}
    return codec.replace(current, **changed)
