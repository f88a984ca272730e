"""Signals as images and requests name them (signal(7))."""

from __future__ import annotations

import re
import signal

from phantom_cri.errors import InvalidArgument


def signal_number(name: str) -> int:
    """`SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` → number. InvalidArgument for anything else."""
    text = name.upper().removeprefix("SIG")
    if text.isdecimal() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    real_time = re.fullmatch(r"RTM(IN|AX)(?:([+-])(\d+))?", text)
    if real_time:
        base = signal.SIGRTMIN if real_time[1] == "IN" else signal.SIGRTMAX
        number = base + int((real_time[2] or "+") + (real_time[3] or "0"))
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    try:
        return signal.Signals[f"SIG{text}"]
    except KeyError:
        raise InvalidArgument(f"stop_signal: {name!r} is not a signal") from None


def signal_name(text: str) -> str:
    """`15`, `term`, `RTMAX-30` → `SIGTERM`, `SIGRTMIN`: as CRI names it. Raises as `signal_number`."""
    number = signal_number(text)
    if number >= signal.SIGRTMIN:
        above = number - signal.SIGRTMIN
        return f"SIGRTMIN+{above}" if above else "SIGRTMIN"
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)  # 32 and 33 are reserved by the C library and have no name
