"""The `phantom` command, for manual use of pods; it only uses the daemon's socket.

Modules are imported by the command that needs them, so that `phantom version` is fast.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module

from phantom_cri.cli.arguments import Namespace, build_parser
from phantom_cri.cli.failure import Failure

Command = Callable[[Namespace], Awaitable[int]]

_COMMANDS = {
    "run": ("run", "run"),
    "exec": ("exec", "run"),
    "attach": ("exec", "attach"),
    "logs": ("show_logs", "logs"),
    "ps": ("pods", "ps"),
    "stop": ("pods", "stop"),
    "rm": ("pods", "remove"),
    "images": ("images", "images"),
    "pull": ("images", "pull"),
    "load": ("images", "load"),
    "rmi": ("images", "remove"),
    "plan": ("plan", "plan"),
    "pools": ("node", "pools"),
    "policies": ("node", "policies"),
    "doctor": ("node", "doctor"),
    "version": ("node", "version"),
}

INTERRUPTED = 130  # 128 + SIGINT, as in shells


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse raises SystemExit for wrong arguments."""
    args = build_parser().parse_args(arguments)
    # Set before its import, else grpc's C core writes log lines into the container's output.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    own_failure = 125 if args.command == "run" else 1  # as docker, to distinguish it from a container's codes
    try:
        return asyncio.run(_interruptible(args))
    except Failure as failure:
        print(f"phantom: {failure}", file=sys.stderr)
        return failure.exit_code or own_failure
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone. Without this, Python reports it again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


async def _interruptible(args: Namespace) -> int:
    """SIGTERM cancels and cleans up, as Ctrl-C does (for which asyncio.run cancels its task)."""
    task = asyncio.current_task()
    if task:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    code = await _command(args)
    sys.stdout.flush()
    return code


async def _command(args: Namespace) -> int:
    module, function = _COMMANDS[args.command]
    command: Command = getattr(import_module(f"phantom_cri.cli.{module}"), function)
    return await command(args)
