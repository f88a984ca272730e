"""The flags of every command, named as in docker and crictl."""

from __future__ import annotations

import argparse
import os
import re
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from phantom_cri import __version__

__all__ = ["DEFAULT_HOST", "Namespace", "build_parser"]

DEFAULT_HOST = "unix:///run/phantom/cri.sock"


class Parser(argparse.ArgumentParser):
    """Refuses abbreviated flags, whose meaning can change when a flag is added."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.print_usage()
        self.exit(
            125 if self.prog.endswith(" run") else 2, f"{self.prog}: {message}\nSee '{self.prog} --help'.\n"
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """A command's parser refuses unknown flags itself, with the command's name and exit code."""
        parsed, surplus = super().parse_known_args(args, namespace)
        if surplus:
            self.error(f"unrecognized arguments: {' '.join(surplus)}")
        return parsed, surplus

    def print_usage(self, file: Any = None) -> None:
        """Usage is only shown by --help: errors are one sentence."""


def build_parser() -> Parser:
    parser = Parser(prog="phantom", description="Run and manage pods on Phantom Fragment.")
    parser.add_argument("--version", action="version", version=f"phantom {__version__}")
    _common(parser, os.environ.get("PHANTOM_HOST") or DEFAULT_HOST, False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str, **options: Any) -> Parser:
        made: Parser = commands.add_parser(name, help=text, description=text, **options)
        _common(made, argparse.SUPPRESS, argparse.SUPPRESS)
        return made

    _run_flags(
        command("run", "Run a command in a new pod", usage="phantom run [FLAGS] IMAGE [COMMAND] [ARG...]")
    )
    _inner_flags(command)
    _pod_flags(command)
    _image_flags(command)
    command("pools", "List the pools of warm fragments")
    command("policies", "List the policies that confine containers")
    command("doctor", "Check the kernel features of this node, and show fallbacks in use")
    command("version", "Show the versions of client and daemon")
    return parser


def _common(parser: Parser, host: str, json: Any) -> None:
    parser.add_argument(
        "--host",
        metavar="unix://PATH",
        default=host,
        help=f"socket of the daemon (default $PHANTOM_HOST, else {DEFAULT_HOST})",
    )
    parser.add_argument("--json", action="store_true", default=json, help="print JSON for programs")


def _inner_flags(command: Any) -> None:
    exec_ = command(
        "exec",
        "Run a command in a running container",
        usage="phantom exec [FLAGS] POD COMMAND [ARG...]",
    )
    exec_.add_argument("-i", "--interactive", action="store_true", help="pass your standard input")
    exec_.add_argument("-t", "--tty", action="store_true", help="allocate a terminal")
    attach = command("attach", "Connect to a running container's input and output")
    attach.add_argument("--no-stdin", action="store_true", help="output only")
    logs = command("logs", "Show a container's output")
    logs.add_argument("-f", "--follow", action="store_true", help="continue until the container has ended")
    logs.add_argument("-n", "--tail", type=_count, default=-1, metavar="LINES", help="only the last LINES")
    logs.add_argument(
        "--since", type=_since, default=None, metavar="TIME", help="as 10m, or 2026-01-02T03:04:05Z"
    )
    logs.add_argument("-t", "--timestamps", action="store_true", help="show when each line was written")
    plan = command("plan", "Show how a container is started, step by step, and its confinement")
    for one in (exec_, attach, logs, plan):
        one.add_argument("-c", "--container", default="", metavar="NAME", help="the container of the pod")
        one.add_argument("pod", metavar="POD", help="id of a pod or of a container in it, or a name")
    for one in (exec_, attach):
        _stream_flags(one)
    exec_.add_argument("command_line", nargs=argparse.REMAINDER, metavar="COMMAND [ARG...]")


def _stream_flags(parser: Parser) -> None:
    parser.add_argument(
        "--tls-ca",
        default=os.environ.get("PHANTOM_TLS_CA", ""),
        metavar="FILE",
        help="authority of a streaming server with TLS (default $PHANTOM_TLS_CA, else the system's)",
    )


def _count(text: str) -> int:
    """Raises ArgumentTypeError."""
    if text == "all":
        return -1
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number of lines or all, got {text!r}")
    return int(text)


def _since(text: str) -> datetime:
    """A time, or how long ago. Raises ArgumentTypeError."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    now = datetime.now(UTC)
    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        seconds = sum(float(n) * units[unit] for n, unit in re.findall(r"([\d.]+)([smhd])", text))
        return now - timedelta(seconds=min(seconds, now.timestamp()))
    try:
        moment = datetime.fromtimestamp(int(text), UTC) if text.isdecimal() else datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(f"must be a time or a duration, got {text!r}") from None
    return moment if moment.tzinfo else moment.astimezone()


def _pod_flags(command: Any) -> None:
    ps = command("ps", "List containers")
    ps.add_argument("-a", "--all", action="store_true", help="also those that are not running")
    ps.add_argument("-q", "--quiet", action="store_true", help="print ids only")
    stop = command("stop", "Stop pods")
    stop.add_argument(
        "-t", "--time", type=int, default=10, metavar="SECONDS", help="until SIGKILL (default 10)"
    )
    stop.add_argument("pods", nargs="+", metavar="POD", help="id of a pod or of a container in it, or a name")
    rm = command("rm", "Remove pods")
    rm.add_argument("-f", "--force", action="store_true", help="also running ones")
    rm.add_argument("pods", nargs="+", metavar="POD", help="id of a pod or of a container in it, or a name")


def _image_flags(command: Any) -> None:
    images = command("images", "List images")
    images.add_argument("-q", "--quiet", action="store_true", help="print ids only")
    images.add_argument("--digests", action="store_true", help="show digests")
    images.add_argument("--no-trunc", action="store_true", help="print whole ids")
    pull = command("pull", "Pull an image from its registry")
    credentials = pull.add_mutually_exclusive_group()
    credentials.add_argument(
        "--creds",
        metavar="USER[:PASSWORD]",
        help="credentials; a missing password is read from standard input, so that other users cannot see it",
    )
    credentials.add_argument(
        "--auth", metavar="BASE64", help="base64 of USER:PASSWORD; - reads it from standard input"
    )
    pull.add_argument("-q", "--quiet", action="store_true", help="print the id only")
    pull.add_argument("image", metavar="IMAGE")
    load = command("load", "Load images from an OCI or Docker archive")
    load.add_argument("-q", "--quiet", action="store_true", help="no progress")
    load.add_argument("file", metavar="FILE")
    rmi = command("rmi", "Remove images")
    rmi.add_argument("images", nargs="+", metavar="IMAGE", help="name, digest or id")


def _run_flags(run: Parser) -> None:
    add = run.add_argument
    add("--rm", action="store_true", help="remove the pod when its command has ended")
    add("-d", "--detach", action="store_true", help="print the pod's id and leave it running")
    add("-i", "--interactive", action="store_true", help="pass your standard input to the container")
    add("-t", "--tty", action="store_true", help="allocate a terminal")
    _stream_flags(run)
    add("--name", metavar="NAME", help="name of pod and container (default: from the image)")
    add(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="without a value: from your environment",
    )
    add("-v", "--volume", action="append", default=[], metavar="HOST:POD[:ro]", help="bind mount")
    add("-w", "--workdir", default="", metavar="DIR", help="working directory of the command")
    add("-u", "--user", default="", metavar="USER[:GID]", help="name or number")
    add("-l", "--label", action="append", default=[], metavar="KEY=VALUE")
    add("--network", choices=("pod", "host"), default="pod", help="own network, or the node's (default pod)")
    add(
        "-p",
        "--publish",
        action="append",
        default=[],
        metavar="[IP:]HOST:POD[/PROTOCOL]",
        help="open a host port",
    )
    add("-m", "--memory", default="", metavar="SIZE", help="limit, as 512m or 2g")
    add("--cpus", type=float, default=0.0, metavar="NUMBER", help="limit, as 0.5")
    add("--read-only", action="store_true", help="mount the root filesystem read-only")
    add("--cap-add", action="append", default=[], metavar="CAPABILITY")
    add("--cap-drop", action="append", default=[], metavar="CAPABILITY")
    add(
        "--security-opt",
        action="append",
        default=[],
        metavar="OPTION",
        help="seccomp=unconfined, seccomp=FILE or no-new-privileges",
    )
    add(
        "--pull",
        choices=("missing", "always", "never"),
        default="missing",
        help="when to pull (default missing)",
    )
    add("--runtime-handler", default="", metavar="HANDLER", help="the handler of a RuntimeClass")
    add(
        "--log-dir",
        default="/var/log/phantom",
        metavar="DIR",
        help="folder of logs (default /var/log/phantom)",
    )
    add("--timing", action="store_true", help="show how the pod was started and the time of each stage")
    add("image", metavar="IMAGE")
    add(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="COMMAND [ARG...]",
        help="instead of the image's command",
    )
