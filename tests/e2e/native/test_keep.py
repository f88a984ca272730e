"""Fds that a daemon leaves for a later one."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tests.e2e.native import raw
from tests.e2e.native.raw import Fragment, Refused

pytestmark = pytest.mark.root

MOST = 256


def refusal(fragment: Fragment, type_: int, **fields: object) -> int:
    with pytest.raises(Refused) as refused:
        fragment.client.ask(type_, **fields)
    return refused.value.error


def test_what_cannot_be_kept(fragment: Fragment) -> None:
    with socket.socket() as one:
        fds = [one.fileno()]
        for name in ("", ".", "a/b/c", "/a"):
            assert refusal(fragment, raw.KEEP_FD, id=name, fds=fds) == errno.EINVAL
        assert refusal(fragment, raw.KEEP_FD, id="a", fds=fds * 2) == errno.EINVAL
        for name in ("", "a"):
            assert refusal(fragment, raw.KEPT_FD, id=name) == errno.ENOENT
        for number in range(MOST):
            fragment.client.ask(raw.KEEP_FD, id=f"a/{number}", fds=fds)
        assert refusal(fragment, raw.KEEP_FD, id="more", fds=fds) == errno.EMFILE
        fragment.client.ask(raw.KEEP_FD, id="a/7")
        fragment.client.ask(raw.KEEP_FD, id="more", fds=fds)
        assert refusal(fragment, raw.KEPT_FD, id="a/7") == errno.ENOENT


def test_the_other_side_sees_no_end_until_it_is_dropped(fragment: Fragment) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        fragment.client.ask(raw.KEEP_FD, id="wire", fds=[ours.fileno()])
        ours.close()
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        (fd,) = fragment.connect().ask(raw.KEPT_FD, id="wire").fds
        os.write(fd, b"later")
        os.close(fd)
        assert theirs.recv(9) == b"later"
        fragment.client.ask(raw.KEEP_FD, id="wire")
        fragment.client.ask(raw.KEEP_FD, id="wire")
        assert theirs.recv(9) == b""


def test_a_name_is_kept_once(fragment: Fragment) -> None:
    first, second = os.pipe(), os.pipe()
    for pipe in (first, second):
        fragment.client.ask(raw.KEEP_FD, id="pipe", fds=[pipe[1]])
        os.close(pipe[1])
    assert os.read(first[0], 1) == b""
    (fd,) = fragment.client.ask(raw.KEPT_FD, id="pipe").fds
    os.write(fd, b"x")
    os.close(fd)
    assert os.read(second[0], 1) == b"x"
    os.close(first[0])
    os.close(second[0])
