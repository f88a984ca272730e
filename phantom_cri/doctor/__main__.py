"""The process that runs the probes: `python -m phantom_cri.doctor` prints the checks as JSON and ends."""

from __future__ import annotations

import sys

from phantom_cri.codec import to_json
from phantom_cri.doctor.probes import PROBES, attempt

if __name__ == "__main__":
    sys.stdout.buffer.write(to_json([attempt(probe) for probe in PROBES]) + b"\n")
