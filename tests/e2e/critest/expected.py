"""What cannot pass on a machine, and why. Everything else has to, and nothing else may be skipped."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.critest.suite import Report, Spec

# critest 1.36 without SELinux's specs, which it only adds on a host that has SELinux.
SPECS = 117

FAILURES = {
    "public image with digest should be pulled and removed [Conformance]": (
        "pins the digest of an image on a public registry; no image built here can have it"
    ),
}


def no_apparmor() -> str:
    """Why specs that need AppArmor skip themselves; empty on a host that has it."""
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    if enabled.exists() and enabled.read_text().strip() == "Y":
        return ""
    return "this host's kernel has AppArmor disabled; the suite skips them by itself"


def skip_reason(spec: Spec, lacks: str) -> str:
    """Why this spec may be skipped on this machine; empty if it may not. `lacks`: words in a spec's name."""
    if lacks and lacks in f"{spec.group} {spec.name}":
        return "what is under test does not have it, and says so"
    return no_apparmor() if spec.group == "AppArmor" else ""


def surprises(report: Report, lacks: str = "") -> list[str]:
    """A line for each spec that did not do what is expected of it."""
    failed = {spec.name for spec in report.with_outcome("failed")}
    lines = [f"FAILED  {spec}" for spec in report.with_outcome("failed") if spec.name not in FAILURES]
    lines += [f"SKIPPED {spec}" for spec in report.with_outcome("skipped") if not skip_reason(spec, lacks)]
    lines += [
        f"PASSED, though it {reason}: {name}"
        for name, reason in FAILURES.items()
        if name in report.specs and name not in failed
    ]
    return lines
