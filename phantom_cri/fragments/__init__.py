"""The daemon's side of fragments: spawning, communicating, watching for their end.

`spawn` starts a fragment, `Fragment` is its client.
"""

from __future__ import annotations

from phantom_cri.fragments.client import Attached, Entry, Event, Exited, FragmentClient, Lost, Resync
from phantom_cri.fragments.descriptors import moved_up
from phantom_cri.fragments.failure import ExecError, FragmentLost, LaunchError
from phantom_cri.fragments.features import Hello, OtherVersion
from phantom_cri.fragments.message import Exit, Phase, State
from phantom_cri.fragments.proc_stat import ProcStat, read_proc_stat
from phantom_cri.fragments.processes import Started, identify, open_process, reap, watch_death
from phantom_cri.fragments.spawn import SOCKET, Spawned, end, spawn
from phantom_cri.fragments.statistics import FragmentStatistics, summed

__all__ = [
    "SOCKET",
    "Attached",
    "Entry",
    "Event",
    "ExecError",
    "Exit",
    "Exited",
    "FragmentClient",
    "FragmentLost",
    "FragmentStatistics",
    "Hello",
    "LaunchError",
    "Lost",
    "OtherVersion",
    "Phase",
    "ProcStat",
    "Resync",
    "Spawned",
    "Started",
    "State",
    "end",
    "identify",
    "moved_up",
    "open_process",
    "read_proc_stat",
    "reap",
    "spawn",
    "summed",
    "watch_death",
]
