"""Inside the machine: runs one shell command after the other, and sends what it says and how it ends.

A line in is JSON `{"command": …, "seconds": …}`; a line out is `{"output": base64}` or, last, `{"code": N}`.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tty
from typing import Any, BinaryIO


def main() -> None:
    with open(sys.argv[1], "r+b", buffering=0) as line:
        tty.setraw(line.fileno())
        say(line, code=0)  # here, and ready
        buffer = b""
        while chunk := line.read(4096):
            buffer += chunk
            while b"\n" in buffer:
                request, _, buffer = buffer.partition(b"\n")
                serve(line, json.loads(request))


def serve(line: BinaryIO, request: dict[str, Any]) -> None:
    command = ["timeout", "-k", "10", str(request["seconds"]), "/bin/bash", "-c", request["command"]]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for output in process.stdout:
            say(line, output=base64.b64encode(output).decode())
    say(line, code=process.returncode)


def say(line: BinaryIO, **answer: object) -> None:
    rest = json.dumps(answer).encode() + b"\n"
    while rest:
        rest = rest[line.write(rest) :]


if __name__ == "__main__":
    main()
