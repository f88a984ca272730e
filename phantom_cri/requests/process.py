"""A container's process: command, environment and folder of the request override the image's.

Rules: as containerd's CRI plugin.
"""

from __future__ import annotations

from collections.abc import Iterable

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import ContainerConfig, ImageConfig
from phantom_cri.plans.spec import Process
from phantom_cri.requests.paths import clean

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def merged(config: ContainerConfig, image: ImageConfig, *, hostname: str = "", home: str = "/") -> Process:
    """The process of a container in a pod named `hostname`; `home` is the folder of its user.

    Raises InvalidArgument naming field and value.
    """
    return Process(
        args=arguments(config, image),
        env=environment(config, image, hostname, home),
        cwd=working_directory(config, image),
    )


def arguments(config: ContainerConfig, image: ImageConfig) -> tuple[str, ...]:
    """`command` replaces the image's entrypoint and cmd; `args` without it only the cmd."""
    entrypoint = () if image.entrypoint == ("",) else image.entrypoint
    if config.command:
        found, field = (*config.command, *config.args), "command"
    elif config.args:
        found, field = (*entrypoint, *config.args), "args"
    else:
        found, field = (*entrypoint, *image.cmd), "image.entrypoint"
    if not found:
        raise InvalidArgument("command: no command specified, neither in the request nor in the image")
    if not found[0]:
        raise InvalidArgument(f"{field}: the command {list(found)} starts with an empty string")
    for index, argument in enumerate(found):
        if "\0" in argument:
            raise InvalidArgument(f"{field}: argument {index} {argument!r} has a NUL byte")
    return found


def environment(config: ContainerConfig, image: ImageConfig, hostname: str, home: str) -> tuple[str, ...]:
    """Defaults, then the image's, then the request's variables; a later value replaces an earlier one."""
    found = {"PATH": DEFAULT_PATH}
    if hostname:
        found["HOSTNAME"] = hostname
    if config.tty:
        found["TERM"] = "xterm"
    for text in image.env:
        name, separator, value = text.partition("=")
        if "\0" in text:
            raise InvalidArgument(f"image.env: {text!r} has a NUL byte")
        if name and separator:
            found[name] = value
    for index, variable in enumerate(config.envs):
        _check_variable(f"envs[{index}]", variable.name, variable.text)
        found[variable.name] = variable.text
    found.setdefault("HOME", home)
    return tuple([f"{name}={value}" for name, value in found.items()])


def with_terminal(env: Iterable[str]) -> tuple[str, ...]:
    """`env` for an exec with a tty: TERM is xterm unless the container sets it."""
    found = tuple(env)
    return found if any(text.startswith("TERM=") for text in found) else (*found, "TERM=xterm")


def _check_variable(field: str, name: str, value: str) -> None:
    if not name or "=" in name or "\0" in name:
        raise InvalidArgument(f"{field}.name: {name!r} is empty or has a '=' or a NUL byte")
    if "\0" in value:
        raise InvalidArgument(f"{field}.value: the value of {name} has a NUL byte")


def working_directory(config: ContainerConfig, image: ImageConfig) -> str:
    """The image's folder may be relative to the root."""
    if config.working_dir:
        return clean(config.working_dir, "working_dir")
    return clean("/" + image.working_dir, "image.working_dir")
