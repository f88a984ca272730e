"""The end of a session as reported to clients: a Kubernetes Status (v4, v5) or plain text (before)."""

from __future__ import annotations

from phantom_cri.codec import to_json

STOPPED = "the container runtime was stopped: connect again"


class Ending:
    """`text` is empty on success."""

    def __init__(self, text: str, status: dict[str, object]) -> None:
        self.text = text
        self.status = status

    def to_json(self) -> bytes:
        return to_json({"metadata": {}, **self.status})


def success() -> Ending:
    return Ending("", {"status": "Success"})


def exited(code: int) -> Ending:
    """`code` 0 is success; clients read other codes from the cause's message."""
    if code == 0:
        return success()
    text = f"command terminated with non-zero exit code: exit code {code}"
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return Ending(
        text,
        {
            "status": "Failure",
            "message": text,
            "reason": "NonZeroExitCode",
            "details": {"causes": causes},
        },
    )


def failed(reason: str) -> Ending:
    text = f"Internal error occurred: {reason}"
    return Ending(
        text,
        {
            "status": "Failure",
            "message": text,
            "reason": "InternalError",
            "code": 500,
            "details": {"causes": [{"message": reason}]},
        },
    )
