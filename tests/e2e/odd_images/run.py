"""Runs a case on one runtime and says what it came to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from harness.waiting import PATIENCE
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Cri, Pod
from tests.e2e.odd_images.case import PULL_ONLY, STATUS, STOPPED, Case, Outcome

Answer = TypeVar("Answer")

# containerd says UNKNOWN to most: what matters is what the client does next.
KINDS = {
    grpc.StatusCode.NOT_FOUND: "not found",
    grpc.StatusCode.UNAUTHENTICATED: "denied",
    grpc.StatusCode.PERMISSION_DENIED: "denied",
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "hangs",
}
SECONDS = 30 * PATIENCE
SECONDS_OF_WHAT_HANGS = 2


class Refused(Exception):
    """The runtime said no at a step."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


class Runner:
    """Runs cases on the runtime behind `cri`, in containers of `pod`."""

    def __init__(self, cri: Cri, pod: Pod, host: str) -> None:
        self.cri, self.pod, self.host = cri, pod, host
        self.why = ""
        self.seconds = SECONDS

    def run(self, case: Case, reference: str, expected: Outcome) -> Outcome:
        """What it came to; `why` has the words of a refusal.

        What is `expected` to hang is not waited for long.
        """
        self.why = ""
        self.seconds = SECONDS_OF_WHAT_HANGS if expected.kind == "hangs" else SECONDS
        try:
            image = self._call("pull", lambda: self._pull(reference))
            if case.command == PULL_ONLY:
                return Outcome("pulled")
            if case.command == STATUS:
                return Outcome(self._status(reference))
            return self._contained(case, image)
        except Refused as error:
            self.why = str(error)
            return error.outcome

    def _pull(self, reference: str) -> str:
        request = pb.PullImageRequest(image=pb.ImageSpec(image=reference))
        return str(self.cri.images.PullImage(request, timeout=self.seconds).image_ref)

    def _status(self, reference: str) -> str:
        request = pb.ImageStatusRequest(image=pb.ImageSpec(image=reference))
        image = self._call("status", lambda: self.cri.images.ImageStatus(request).image)
        user = image.username or (str(image.uid.value) if image.HasField("uid") else "unset")
        names = "\n".join([*sorted(image.repo_tags), *sorted(image.repo_digests), f"user {user}"])
        return re.sub(r"[0-9a-f]{64}", "DIGEST", names.replace(self.host, "HOST"))

    def _contained(self, case: Case, image: str) -> Outcome:
        own = case.command == STOPPED
        command: Any = () if own else case.command
        fields = {"image": pb.ImageSpec(image=image)}
        container = self._call("create", lambda: self._create(command, fields))
        try:
            self._call("start", container.start)
            if own:
                container.wait_output("ready")
                self._call("stop", lambda: container.stop(timeout=1))
            status = container.wait_exited()
            return Outcome(container.output, status.exit_code)
        finally:
            container.remove()

    def _create(self, command: Any, fields: dict[str, Any]) -> Container:
        request = pb.CreateContainerRequest(
            pod_sandbox_id=self.pod.id,
            config=self.pod.container_config(command, **fields),
            sandbox_config=self.pod.config,
        )
        made = self.cri.runtime.CreateContainer(request, timeout=self.seconds)
        return Container(self.cri, made.container_id)

    def _call(self, step: str, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            kind = KINDS.get(code, "refused")
            raise Refused(Outcome(step=step, kind=kind), f"{code.name}: {error.details()}") from None
