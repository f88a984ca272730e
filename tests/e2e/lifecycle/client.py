"""A CRI client as a test wants it: pods and containers of one daemon in a few words."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from harness.waiting import PATIENCE, wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.api.cri.v1 import api_pb2_grpc
from phantom_cri.api.phantom.v1 import node_pb2, node_pb2_grpc

MESSAGE_LIMIT = 40 << 20
LONGEST_CALL_SECONDS = 60.0 * PATIENCE


class _Deadline(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """A call that hangs fails its test instead of holding all of them up."""

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        details = client_call_details
        if details.timeout is None:
            details = details._replace(timeout=LONGEST_CALL_SECONDS)
        return continuation(details, request)


class Cri:
    """Both services of the daemon at `endpoint` over one channel; `image` is what containers run."""

    def __init__(self, endpoint: str, image: str = "") -> None:
        self.image = image
        # Any, here and below: the generated types tell of the asyncio stubs alone.
        channel: Any = grpc.insecure_channel
        self._connection = channel(
            endpoint,
            options=[
                ("grpc.max_receive_message_length", MESSAGE_LIMIT),
                ("grpc.use_local_subchannel_pool", 1),
                # A daemon that comes back is to be seen at once, not after a back-off of seconds.
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 100),
            ],
        )
        intercept: Any = grpc.intercept_channel
        self.channel = intercept(self._connection, _Deadline())
        self.runtime: Any = api_pb2_grpc.RuntimeServiceStub(self.channel)
        self.images: Any = api_pb2_grpc.ImageServiceStub(self.channel)
        self.node: Any = node_pb2_grpc.NodeStub(self.channel)

    def wait_served(self) -> None:
        """Until a daemon answers, perhaps another one than before."""

        def served() -> bool:
            try:
                self.runtime.Version(pb.VersionRequest())
            except grpc.RpcError:
                return False
            return True

        wait_until(served, "an answer", timeout=30)

    def wait_pools_full(self) -> None:
        """Until then the number of fragments moves by itself."""

        def full() -> bool:
            pools = self.node.ListPools(node_pb2.ListPoolsRequest()).pools
            return all(pool.warm == pool.size and not pool.starting for pool in pools)

        wait_until(full, "full pools")

    def pull(self, reference: str) -> str:
        """Pulls an image and makes it the one that containers run; answers its id."""
        request = pb.PullImageRequest(image=pb.ImageSpec(image=reference))
        self.image = str(self.images.PullImage(request).image_ref)
        return self.image

    def pod(self, logs: Path, **fields: Any) -> Pod:
        """A pod that is not run yet; `fields` are those of PodSandboxConfig."""
        metadata = pb.PodSandboxMetadata(name="pod", uid=str(uuid.uuid4()), namespace="tests")
        config = pb.PodSandboxConfig(
            **{"metadata": metadata, "log_directory": str(logs / metadata.uid), **fields}
        )
        return Pod(self, config)

    def pods(self, **filters: Any) -> set[str]:
        request = pb.ListPodSandboxRequest(filter=pb.PodSandboxFilter(**filters))
        return {pod.id for pod in self.runtime.ListPodSandbox(request).items}

    def containers(self, **filters: Any) -> set[str]:
        request = pb.ListContainersRequest(filter=pb.ContainerFilter(**filters))
        return {container.id for container in self.runtime.ListContainers(request).containers}

    def remove_pods(self) -> None:
        for sandbox_id in self.pods():
            self.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True)
class Line:
    """One line of a log in CRI's format."""

    time: str
    stream: str
    tag: str
    text: str


class Pod:
    """A pod with all that it takes to make containers in it."""

    def __init__(self, cri: Cri, config: pb.PodSandboxConfig, sandbox_id: str = "") -> None:
        self.cri, self.config, self.id = cri, config, sandbox_id
        self._names = (f"c{number}" for number in itertools.count())

    def run_sandbox(self, handler: str = "") -> Pod:
        request = pb.RunPodSandboxRequest(config=self.config, runtime_handler=handler)
        self.id = self.cri.runtime.RunPodSandbox(request).pod_sandbox_id
        return self

    def container_config(self, command: str | Sequence[str], **fields: Any) -> pb.ContainerConfig:
        """A text is a script for sh; the security context is the kubelet's unless `linux` says otherwise."""
        name = next(self._names)
        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        made = {
            "metadata": pb.ContainerMetadata(name=name),
            "image": pb.ImageSpec(image=self.cri.image),
            "command": words,
            "log_path": f"{name}.log",
            "linux": linux(),
        }
        return pb.ContainerConfig(**{**made, **fields})

    def create(self, command: str | Sequence[str], **fields: Any) -> Container:
        request = pb.CreateContainerRequest(
            pod_sandbox_id=self.id,
            config=self.container_config(command, **fields),
            sandbox_config=self.config,
        )
        return Container(self.cri, self.cri.runtime.CreateContainer(request).container_id)

    def start(self, command: str | Sequence[str], **fields: Any) -> Container:
        container = self.create(command, **fields)
        container.start()
        return container

    def run(self, command: str | Sequence[str], **fields: Any) -> Container:
        """Starts a container and waits for its end."""
        container = self.start(command, **fields)
        container.wait_exited()
        return container

    @property
    def status(self) -> pb.PodSandboxStatus:
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=self.id)
        status: pb.PodSandboxStatus = self.cri.runtime.PodSandboxStatus(request).status
        return status

    @property
    def ip(self) -> str:
        return self.status.network.ip

    def stop(self) -> None:
        self.cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=self.id))

    def remove(self) -> None:
        self.cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=self.id))


class Container:
    def __init__(self, cri: Cri, container_id: str) -> None:
        self.cri, self.id = cri, container_id

    def start(self) -> None:
        self.cri.runtime.StartContainer(pb.StartContainerRequest(container_id=self.id))

    def stop(self, timeout: int = 0) -> None:
        self.cri.runtime.StopContainer(pb.StopContainerRequest(container_id=self.id, timeout=timeout))

    def remove(self) -> None:
        self.cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=self.id))

    @property
    def status(self) -> pb.ContainerStatus:
        request = pb.ContainerStatusRequest(container_id=self.id)
        status: pb.ContainerStatus = self.cri.runtime.ContainerStatus(request).status
        return status

    @property
    def details(self) -> str:
        """The JSON that `crictl inspect` shows beside the status."""
        request = pb.ContainerStatusRequest(container_id=self.id, verbose=True)
        return str(self.cri.runtime.ContainerStatus(request).info["info"])

    def wait_exited(self, timeout: float = 20) -> pb.ContainerStatus:
        wait_until(lambda: self.status.state == pb.CONTAINER_EXITED, f"{self.id} to exit", timeout)
        return self.status

    @property
    def log(self) -> list[Line]:
        return read_log(Path(self.status.log_path))

    @property
    def output(self) -> str:
        """What it wrote to both streams, as a terminal would show it, without the last newline."""
        return "".join(line.text + "\n" * (line.tag == "F") for line in self.log).removesuffix("\n")

    def wait_output(self, text: str) -> None:
        wait_until(lambda: text in self.output, f"{text!r} in the log of {self.id}")

    def exec(self, *command: str, timeout: int = 20) -> pb.ExecSyncResponse:
        """A single word is a script for sh."""
        words = command if len(command) > 1 else ("sh", "-c", *command)
        request = pb.ExecSyncRequest(container_id=self.id, cmd=words, timeout=timeout)
        answer: pb.ExecSyncResponse = self.cri.runtime.ExecSync(request)
        return answer

    def tell(self, script: str) -> str:
        """What a script in the container says on stdout; it has to succeed."""
        answer = self.exec(script)
        assert answer.exit_code == 0, answer.stderr.decode()
        return answer.stdout.decode().strip()


# What the kubelet sends unless a container's procMount is Unmasked; no list at all means no such paths.
MASKED = ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def linux(**security: Any) -> pb.LinuxContainerConfig:
    """What the kubelet asks of every container, with fields of the security context changed."""
    made = {
        "namespace_options": pb.NamespaceOption(pid=pb.CONTAINER),
        "seccomp": pb.SecurityProfile(),
        "masked_paths": MASKED,
        "readonly_paths": READ_ONLY,
    }
    context = pb.LinuxContainerSecurityContext(**{**made, **security})
    return pb.LinuxContainerConfig(security_context=context)


def limited(**resources: Any) -> pb.LinuxContainerConfig:
    made = linux()
    made.resources.CopyFrom(pb.LinuxContainerResources(**resources))
    return made


def read_log(path: Path) -> list[Line]:
    """Fails on a line that is not in CRI's format."""
    text = path.read_text() if path.exists() else ""
    return [Line(*line.split(" ", 3)) for line in text.splitlines()]


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """The code and message that `call` is refused with; fails when it is not."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError(f"it was not refused but answered {answer!r}")
