"""CNI plugins of the tests' own: each records what it was asked, and does as it was told to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]

RESULT: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "veth0"}, {"name": "eth0", "sandbox": "/proc/1/ns/net"}],
    "ips": [
        {"address": "192.0.2.1/24"},
        {"address": "192.0.2.7/24", "interface": 1},
        {"address": "2001:db8::7/64", "interface": 1},
        {"address": "192.0.2.254/24", "interface": 0},
    ],
}
"""Of an interface plugin. The first address names no interface, the last is the host's."""

_SCRIPT = """\
#!/usr/bin/python3 -IS
import json, os, sys, time
request = json.loads(sys.stdin.read())
command = os.environ["CNI_COMMAND"]
told = {{key[4:].lower(): value for key, value in os.environ.items() if key.startswith("CNI_")}}
with open({calls!r}, "a") as log:
    log.write(json.dumps({{"plugin": {name!r}, **told, "request": request}}) + "\\n")
bodies = {bodies!r}
if command in bodies:
    exec(bodies[command])
elif command == "VERSION":
    print(json.dumps({{"cniVersion": "1.0.0", "supportedVersions": {versions!r}}}))
elif command == "ADD":
    print(json.dumps(request.get("prevResult", {result!r})))
"""


class Plugins:
    """Programs in `folder`/bin; each call is a line of `folder`/calls."""

    def __init__(self, folder: Path) -> None:
        self.bin_dir, self._calls = folder / "bin", folder / "calls"
        self.bin_dir.mkdir(parents=True, exist_ok=True)

    def make(self, name: str, versions: list[str] = VERSIONS, **bodies: str) -> dict[str, Any]:
        """A plugin that does the Python text in `bodies` for a command, and a configuration of it."""
        text = _SCRIPT.format(
            calls=str(self._calls), name=name, bodies=bodies, versions=versions, result=RESULT
        )
        path = self.bin_dir / name
        half = path.with_suffix(".half")  # a program that is being written cannot be executed
        half.write_text(text)
        half.chmod(0o755)
        half.rename(path)
        return {"type": name}

    def calls(self, *commands: str) -> list[dict[str, Any]]:
        """What was asked so far, in order; of `commands` only, if any are given."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        calls: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [call for call in calls if not commands or call["command"] in commands]

    def order(self, *commands: str) -> list[str]:
        """`COMMAND plugin` of each call."""
        return [f"{call['command']} {call['plugin']}" for call in self.calls(*commands)]

    def forget(self) -> None:
        self._calls.unlink(missing_ok=True)
