"""Converts the flags of `phantom run` to CRI messages; wrong flags are refused before any call."""

from __future__ import annotations

import os
import re
import secrets
import uuid
from argparse import Namespace
from typing import Any

from phantom_cri.api.cri.v1 import api_pb2 as cri
from phantom_cri.api.phantom.v1 import node_pb2 as wire
from phantom_cri.cli.failure import Failure

MADE_BY = "phantom.run"
"""Label of pods created by `phantom run`."""

LOG_DIRECTORY = "phantom.run/log-directory"
"""Annotation: the folder that `phantom rm` removes with the pod."""

LOG_NAME = "0.log"

CPU_PERIOD = 100_000  # microseconds, as docker and the kubelet use

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_PROTOCOLS = {"tcp": cri.Protocol.TCP, "udp": cri.Protocol.UDP, "sctp": cri.Protocol.SCTP}
_PROPAGATIONS = {
    "private": cri.MountPropagation.PROPAGATION_PRIVATE,
    "rslave": cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER,
    "rshared": cri.MountPropagation.PROPAGATION_BIDIRECTIONAL,
}


def pod_config(args: Namespace) -> cri.PodSandboxConfig:
    name = args.name or _name_from(args.image)
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}", name):
        raise Failure(f"--name: must be 1 to 63 letters, digits, _, . and -, got {name!r}")
    uid = uuid.uuid4().hex
    log_directory = os.path.join(os.path.abspath(args.log_dir), f"{name}_{uid}")
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=name, uid=uid, namespace="default"),
        hostname="" if args.network == "host" else re.sub(r"[_.]", "-", name),
        log_directory=log_directory,
        port_mappings=[port_mapping(text, args.network) for text in args.publish],
        labels={MADE_BY: "true", **_pairs(args.label, "--label")},
        annotations={LOG_DIRECTORY: log_directory},
        linux=cri.LinuxPodSandboxConfig(
            security_context=cri.LinuxSandboxSecurityContext(
                namespace_options=_namespaces(args),
                seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.ProfileType.RuntimeDefault),
            )
        ),
    )


def container_config(args: Namespace, image_id: str, name: str, policy: wire.Policy) -> cri.ContainerConfig:
    """The arguments after IMAGE replace the image's cmd, as in docker: CRI's args, not its command.

    `policy`: of the pod's runtime handler. Its masked paths are added to the request, as a kubelet adds its
    own: a request without any means procMount Unmasked.
    """
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=name),
        image=cri.ImageSpec(image=image_id, user_specified_image=args.image),
        args=args.arguments,
        working_dir=args.workdir,
        envs=[_environment(text) for text in args.env],
        mounts=[mount(text) for text in args.volume],
        labels={MADE_BY: "true", **_pairs(args.label, "--label")},
        log_path=LOG_NAME,
        stdin=args.interactive,
        # With pipes the input ends with its only client; a terminal can be attached again.
        stdin_once=args.interactive and not args.tty and not args.detach,
        tty=args.tty,
        linux=cri.LinuxContainerConfig(resources=resources(args), security_context=_security(args, policy)),
    )


def _name_from(image: str) -> str:
    base = re.split(r"[@:]", image.rsplit("/", 1)[-1])[0] or "pod"
    return f"{base[:40]}-{secrets.token_hex(3)}"


def _namespaces(args: Namespace) -> cri.NamespaceOption:
    network = cri.NamespaceMode.NODE if args.network == "host" else cri.NamespaceMode.POD
    return cri.NamespaceOption(network=network, pid=cri.NamespaceMode.CONTAINER, ipc=cri.NamespaceMode.POD)


def _pairs(texts: list[str], flag: str) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    if "" in pairs:
        raise Failure(f"{flag}: must be KEY=VALUE, got {texts!r}")
    return pairs


def _environment(text: str) -> cri.KeyValue:
    key, given, value = text.partition("=")
    if not key:
        raise Failure(f"--env: must be KEY=VALUE or KEY, got {text!r}")
    return cri.KeyValue(key=key, value=os.fsencode(value if given else os.environ.get(key, "")))


def mount(text: str) -> cri.Mount:
    """`HOST:POD[:ro,rslave]`. Only bind mounts: named volumes belong to docker."""
    host, _, rest = text.partition(":")
    path, _, options = rest.partition(":")
    if host.startswith("."):
        host = os.path.abspath(host)
    if not host.startswith("/") or not path.startswith("/"):
        raise Failure(f"--volume: must be HOST:POD[:OPTIONS] with absolute paths, got {text!r}")
    made = cri.Mount(host_path=host, container_path=path)
    for option in options.split(",") if options else ():
        if option in ("ro", "rw"):
            made.readonly = option == "ro"
        elif option in _PROPAGATIONS:
            made.propagation = _PROPAGATIONS[option]
        else:
            raise Failure(
                f"--volume: unknown option {option!r} in {text!r}: ro, rw, private, rslave or rshared"
            )
    return made


def port_mapping(text: str, network: str = "pod") -> cri.PortMapping:
    """`[IP:]HOST:POD[/PROTOCOL]`; an IPv6 address in brackets."""
    match = re.fullmatch(r"(?:(\[[0-9a-fA-F:.]+\]|[0-9.]+):)?(\d+):(\d+)(?:/(\w+))?", text)
    numbers = [int(match[2]), int(match[3])] if match else [0]
    protocol = _PROTOCOLS.get((match[4] or "tcp").lower()) if match else None
    if not match or protocol is None or not all(0 < number < 65536 for number in numbers):
        raise Failure(f"--publish: must be [IP:]HOST:POD[/tcp|udp|sctp], got {text!r}")
    if network == "host":
        raise Failure("--publish: a pod in the node's network has no ports of its own")
    return cri.PortMapping(
        protocol=protocol,
        host_port=numbers[0],
        container_port=numbers[1],
        host_ip=(match[1] or "").strip("[]"),
    )


def resources(args: Namespace) -> cri.LinuxContainerResources:
    limits = cri.LinuxContainerResources()
    if args.memory:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([bkmgt]?)(?:i?b)?", args.memory.lower())
        if not match or float(match[1]) == 0:
            raise Failure(f"--memory: must be a size such as 512m or 2g, got {args.memory!r}")
        limits.memory_limit_in_bytes = int(float(match[1]) * _UNITS[match[2]])
    if args.cpus:
        if not 0.01 <= args.cpus <= 10_000:
            raise Failure(f"--cpus: must be between 0.01 and 10000, got {args.cpus}")
        limits.cpu_period, limits.cpu_quota = CPU_PERIOD, round(args.cpus * CPU_PERIOD)
    return limits


def _security(args: Namespace, policy: wire.Policy) -> cri.LinuxContainerSecurityContext:
    kinds = cri.SecurityProfile.ProfileType
    context = cri.LinuxContainerSecurityContext(
        capabilities=cri.Capability(
            add_capabilities=[_capability(name) for name in args.cap_add],
            drop_capabilities=[_capability(name) for name in args.cap_drop],
        ),
        namespace_options=_namespaces(args),
        readonly_rootfs=args.read_only,
        masked_paths=policy.masked_paths,
        readonly_paths=policy.readonly_paths,
        seccomp=cri.SecurityProfile(profile_type=kinds.RuntimeDefault),
        **_user(args.user),
    )
    for option in args.security_opt:
        key, _, value = option.partition("=")
        if key == "no-new-privileges" and value in ("", "true"):
            context.no_new_privs = True
        elif key == "seccomp" and value == "unconfined":
            context.seccomp.profile_type = kinds.Unconfined
        elif key == "seccomp" and value:
            context.seccomp.profile_type = kinds.Localhost
            context.seccomp.localhost_ref = os.path.abspath(value)
        else:
            raise Failure(f"--security-opt: must be seccomp=… or no-new-privileges, got {option!r}")
    return context


def _capability(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def _user(text: str) -> dict[str, Any]:
    """CRI accepts a name or a number for the user, but only a number for the group."""
    if not text:
        return {}
    user, given, group = text.partition(":")
    if not user or (given and not group.isdecimal()):
        raise Failure(f"--user: must be USER or USER:GID with a number for the group, got {text!r}")
    chosen: dict[str, Any] = {"run_as_username": user}
    if user.isdecimal():
        chosen = {"run_as_user": cri.Int64Value(value=int(user))}
    if given:
        chosen["run_as_group"] = cri.Int64Value(value=int(group))
    return chosen
