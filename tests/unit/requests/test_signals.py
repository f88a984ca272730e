"""Stop signals by name and number."""

from __future__ import annotations

import signal

import pytest

from phantom_cri.errors import InvalidArgument
from phantom_cri.requests import signal_name, signal_number


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGTERM", signal.SIGTERM),
        ("term", signal.SIGTERM),
        ("9", signal.SIGKILL),
        ("SIGRTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-2", signal.SIGRTMAX - 2),
        ("SIGPOLL", signal.SIGIO),
    ],
)
def test_signals_by_name_and_number(name: str, number: int) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize(
    "name", ["", "SIG", "0", "-9", "65", "SIGNONE", "SIGRTMIN+99", "SIGRTMIN-1", "TERM "]
)
def test_what_is_no_signal_is_refused_with_its_name(name: str) -> None:
    with pytest.raises(InvalidArgument, match="stop_signal"):
        signal_number(name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("15", "SIGTERM"),
        ("term", "SIGTERM"),
        ("SIGCLD", "SIGCHLD"),
        ("RTMIN", "SIGRTMIN"),
        ("SIGRTMIN+3", "SIGRTMIN+3"),
        ("SIGRTMAX-30", "SIGRTMIN"),
        ("SIGRTMAX", "SIGRTMIN+30"),
        ("37", "SIGRTMIN+3"),
        ("33", "33"),
    ],
)
def test_the_name_of_an_images_stop_signal(text: str, name: str) -> None:
    assert signal_name(text) == name
