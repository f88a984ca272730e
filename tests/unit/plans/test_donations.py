from __future__ import annotations

import os
from pathlib import Path

import pytest

from phantom_cri.errors import Internal
from phantom_cri.plans import Donations


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_what_is_given_is_closed_and_what_is_lent_is_not(tmp_path: Path) -> None:
    lent = os.open("/dev/null", os.O_RDONLY)
    with Donations() as donations:
        donations.lend("b", lent)
        given = donations.give("a", os.open("/dev/null", os.O_RDONLY))
        opened = donations.open("log", str(tmp_path / "log"), os.O_WRONLY | os.O_CREAT)
        assert donations.names() == ("b", "a", "log")
        assert donations.in_order(("log", "b")) == [opened, lent]
        assert not os.get_inheritable(opened)
    assert [is_open(fd) for fd in (lent, given, opened)] == [True, False, False]
    os.close(lent)


def test_the_same_name_twice() -> None:
    with Donations() as donations:
        donations.give("a", os.open("/dev/null", os.O_RDONLY))
        second = os.open("/dev/null", os.O_RDONLY)
        with pytest.raises(Internal, match="fd 'a' donated twice"):
            donations.give("a", second)
    assert not is_open(second)


def test_what_a_plan_wants_and_nobody_gave() -> None:
    with Donations() as donations, pytest.raises(Internal, match=r"needs fd 'log', donated are \[\]"):
        donations.in_order(("log",))


def test_an_error_on_the_way_closes_all() -> None:
    with pytest.raises(ZeroDivisionError), Donations() as donations:
        fd = donations.give("a", os.open("/dev/null", os.O_RDONLY))
        raise ZeroDivisionError
    assert not is_open(fd)
