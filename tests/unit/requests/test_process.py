from __future__ import annotations

import pytest

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import EnvVar, ImageConfig
from phantom_cri.requests.process import DEFAULT_PATH, merged, with_terminal
from tests.unit.requests.asked import container

IMAGE = ImageConfig(
    entrypoint=("entry", "-e"), cmd=("cmd",), env=("PATH=/image", "A=image"), working_dir="/srv"
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("envs[1].name", EnvVar(name="A=B", value="x")),
        ("envs[1].name", EnvVar(name="", value="x")),
        ("envs[1].name", EnvVar(name="A\0", value="x")),
        ("envs[1].value", EnvVar(name="A", value="x\0y")),
    ],
)
def test_impossible_variables_are_named(field: str, value: EnvVar) -> None:
    with pytest.raises(InvalidArgument) as refused:
        merged(container(envs=(EnvVar(name="OK"), value)), IMAGE)
    assert str(refused.value).startswith(field)


def test_nothing_to_run() -> None:
    with pytest.raises(InvalidArgument, match="no command specified"):
        merged(container(), ImageConfig())
    with pytest.raises(InvalidArgument, match="starts with an empty string"):
        merged(container(command=("",)), ImageConfig())
    with pytest.raises(InvalidArgument, match=r"argument 1 'b\\x00' has a NUL"):
        merged(container(command=("a", "b\0")), ImageConfig())


@pytest.mark.parametrize("folder", ["srv", "/srv\0"])
def test_impossible_folders(folder: str) -> None:
    with pytest.raises(InvalidArgument, match="working_dir"):
        merged(container(working_dir=folder), IMAGE)


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ((), (), ("entry", "-e", "cmd")),
        ((), ("x",), ("entry", "-e", "x")),
        (("run",), (), ("run",)),
        (("run",), ("x", ""), ("run", "x", "")),
    ],
)
def test_command_and_args(command: tuple[str, ...], args: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert merged(container(command=command, args=args), IMAGE).args == expected


def test_an_empty_entrypoint_counts_as_none() -> None:
    assert merged(container(), ImageConfig(entrypoint=("",), cmd=("sh",))).args == ("sh",)


def test_the_later_value_wins_at_the_earlier_place() -> None:
    config = container(envs=(EnvVar(name="B", value="2"), EnvVar(name="A", value="")))
    assert merged(config, IMAGE, hostname="pod", home="/root").env == (
        "PATH=/image",
        "HOSTNAME=pod",
        "A=",
        "B=2",
        "HOME=/root",
    )


def test_defaults_and_what_images_get_wrong() -> None:
    image = ImageConfig(cmd=("sh",), env=("NOVALUE", "=x", "HOME=/there"))
    assert merged(container(tty=True), image).env == (f"PATH={DEFAULT_PATH}", "TERM=xterm", "HOME=/there")
    with pytest.raises(InvalidArgument, match=r"image\.env"):
        merged(container(), ImageConfig(cmd=("sh",), env=("BAD=\0",)))


def test_bytes_that_are_no_utf8_survive() -> None:
    raw = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert (
        merged(container(envs=(EnvVar(name="R", raw=raw.encode("utf-8", "surrogateescape")),)), IMAGE).env[2]
        == f"R={raw}"
    )


def test_folders() -> None:
    assert merged(container(), IMAGE).cwd == "/srv"
    assert merged(container(working_dir="/a//b/./c/"), IMAGE).cwd == "/a/b/c"
    assert merged(container(), ImageConfig(cmd=("sh",), working_dir="app")).cwd == "/app"
    assert merged(container(), ImageConfig(cmd=("sh",))).cwd == "/"


def test_a_terminal_has_a_name() -> None:
    assert with_terminal(("A=1",)) == ("A=1", "TERM=xterm")
    assert with_terminal(("TERM=vt100",)) == ("TERM=vt100",)
