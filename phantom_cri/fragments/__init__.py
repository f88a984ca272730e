"""The daemon's end of a fragment's life: spawned, spoken with, watched.

`spawn` starts a fragment, `Fragment` is its client.
"""

from __future__ import annotations

from phantom_cri.fragments.client import Attached, Entry, Event, Exited, Fragment, Lost, Resync
from phantom_cri.fragments.descriptors import moved_up
from phantom_cri.fragments.failure import ExecError, FragmentLost, LaunchError
from phantom_cri.fragments.features import Hello, OtherVersion
from phantom_cri.fragments.figures import Figures, read_figures
from phantom_cri.fragments.message import Exit, Phase, State
from phantom_cri.fragments.processes import Started, identify, open_process, reap, watch_death
from phantom_cri.fragments.spawn import SOCKET, Born, end, spawn
from phantom_cri.fragments.statistics import FragmentStatistics, summed

__all__ = [
    "SOCKET",
    "Attached",
    "Born",
    "Entry",
    "Event",
    "ExecError",
    "Exit",
    "Exited",
    "Figures",
    "Fragment",
    "FragmentLost",
    "FragmentStatistics",
    "Hello",
    "LaunchError",
    "Lost",
    "OtherVersion",
    "Phase",
    "Resync",
    "Started",
    "State",
    "end",
    "identify",
    "moved_up",
    "open_process",
    "read_figures",
    "reap",
    "spawn",
    "summed",
    "watch_death",
]
