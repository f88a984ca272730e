"""BPF programs: loading and attaching them by bpf(2). Callers bring the instructions."""

from __future__ import annotations

from phantom_cri.bpf.programs import attach_to_cgroup, load

__all__ = ["attach_to_cgroup", "load"]
