"""Stop signals: CRI's enum is an index into a list of names, not the kernel's numbers."""

from __future__ import annotations

from typing import cast

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.errors import InvalidArgument


def _word(name: str) -> str:
    """`SIGRTMINPLUS3` → `SIGRTMIN+3`, as in OCI images and signal(7)."""
    return name.replace("PLUS", "+").replace("MINUS", "-")


_WORDS = {value: _word(name) for name, value in pb.Signal.items()} | {int(pb.RUNTIME_DEFAULT): ""}
_VALUES = {_word(name): value for name, value in pb.Signal.items()}

# Real-time signals have two names (SIGRTMIN is 34, SIGRTMAX 64); CRI has only one of each.
_VALUES |= {f"SIGRTMIN+{n}": _VALUES[f"SIGRTMAX-{30 - n}"] for n in range(16, 30)}
_VALUES |= {f"SIGRTMAX-{n}": _VALUES[f"SIGRTMIN+{30 - n}"] for n in range(15, 30)}
_VALUES |= {"SIGRTMIN+30": _VALUES["SIGRTMAX"], "SIGRTMAX-30": _VALUES["SIGRTMIN"]}


def signal_from(value: int, field: str) -> str:
    """The name, "" for the runtime's choice."""
    try:
        return _WORDS[value]
    except KeyError:
        raise InvalidArgument(f"{field}: {value} is not a Signal (0…{max(_WORDS)})") from None


def signal_value(name: str) -> pb.Signal:
    """The index for a name; RUNTIME_DEFAULT for a signal that CRI does not have."""
    return cast(pb.Signal, _VALUES.get(name, 0))  # the enum has no constructor: it is an int at run time
