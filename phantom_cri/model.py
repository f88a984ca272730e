"""The nouns of the runtime, as frozen values that are also the records on disk.

Names and meaning follow CRI v1 (`api/cri/`); enums are spelled as words so that records are readable. Times
are nanoseconds since the epoch, sizes bytes, CPU periods and quotas microseconds. Imports nothing of ours but
the codec's base.
"""

from __future__ import annotations

from typing import Any, Literal

from phantom_cri.codec import Record, Stored

NamespaceMode = Literal["pod", "container", "node", "target"]
Propagation = Literal["private", "host_to_container", "bidirectional"]
SandboxState = Literal["ready", "notready"]
ContainerState = Literal["created", "running", "exited", "unknown"]
CgroupDriver = Literal["cgroupfs", "systemd"]
EventKind = Literal["created", "started", "stopped", "deleted"]


class SandboxMetadata(Stored, frozen=True):
    name: str
    uid: str = ""
    namespace: str = ""
    attempt: int = 0


class DnsConfig(Stored, frozen=True):
    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class PortMapping(Stored, frozen=True):
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    container_port: int = 0
    host_port: int = 0  # 0: not exposed on the host
    host_ip: str = ""


class IdMapping(Stored, frozen=True):
    host_id: int
    container_id: int
    length: int


class NamespaceOptions(Stored, frozen=True):
    network: NamespaceMode = "pod"
    pid: NamespaceMode = "pod"
    ipc: NamespaceMode = "pod"
    target_id: str = ""
    user: NamespaceMode = "node"
    uids: tuple[IdMapping, ...] = ()
    gids: tuple[IdMapping, ...] = ()


class SecurityProfile(Stored, frozen=True):
    """A seccomp or AppArmor choice. `None` in its place means unconfined (CRI: nil)."""

    kind: Literal["runtime_default", "unconfined", "localhost"] = "runtime_default"
    localhost_ref: str = ""


class SelinuxOptions(Stored, frozen=True):
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class SelinuxLabels(Stored, frozen=True):
    """Contexts as the kernel writes them: of processes ("": none), and of files made for them."""

    process: str
    mount: str


class HugepageLimit(Stored, frozen=True):
    page_size: str
    limit: int


class Resources(Stored, frozen=True):
    """CRI LinuxContainerResources. 0 or empty: not set; `cpu_quota` -1: unlimited."""

    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_shares: int = 0
    memory_limit: int = 0
    memory_swap_limit: int = 0  # memory + swap together, as OCI counts
    oom_score_adj: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0  # not in CRI's message: from our config
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    unified: dict[str, str] = {}


class SandboxSecurity(Stored, frozen=True):
    namespaces: NamespaceOptions = NamespaceOptions()
    selinux: SelinuxOptions | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    readonly_rootfs: bool = False
    supplemental_groups: tuple[int, ...] = ()
    privileged: bool = False
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None


class SandboxConfig(Stored, frozen=True):
    metadata: SandboxMetadata
    hostname: str = ""
    log_directory: str = ""
    dns: DnsConfig | None = None
    port_mappings: tuple[PortMapping, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    cgroup_parent: str = ""
    security: SandboxSecurity = SandboxSecurity()
    sysctls: dict[str, str] = {}
    overhead: Resources | None = None
    resources: Resources | None = None


class ImageSpec(Stored, frozen=True):
    image: str = ""
    annotations: dict[str, str] = {}
    user_specified_image: str = ""
    runtime_handler: str = ""
    image_ref: str = ""


class Mount(Stored, frozen=True):
    container_path: str
    host_path: str = ""
    readonly: bool = False
    selinux_relabel: bool = False
    propagation: Propagation = "private"
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    recursive_read_only: bool = False
    image: ImageSpec | None = None
    image_sub_path: str = ""
    options: tuple[str, ...] = ()  # of CDI's: nosuid, nodev, noexec, noatime, strictatime; bind: no submounts


class Device(Stored, frozen=True):
    host_path: str
    container_path: str = ""  # empty: the same as on the host
    permissions: str = "rwm"


class Capabilities(Stored, frozen=True):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    add_ambient: tuple[str, ...] = ()


class ContainerSecurity(Stored, frozen=True):
    capabilities: Capabilities = Capabilities()
    privileged: bool = False
    namespaces: NamespaceOptions = NamespaceOptions()
    selinux: SelinuxOptions | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_username: str = ""
    readonly_rootfs: bool = False
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_policy: Literal["merge", "strict"] = "merge"
    no_new_privs: bool = False
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None


class CapabilitySets(Record, frozen=True):
    """Capabilities of a new process, as masks by CAP_* number (capabilities(7))."""

    bounding: int = 0
    effective: int = 0
    permitted: int = 0
    inheritable: int = 0
    ambient: int = 0


class CompiledPolicy(Record, frozen=True):
    """A policy compiled for the processes of one container. Paths that an image lacks are skipped.

    Also stored on disk, and read strictly: an unknown restriction could not be applied.

    seccomp: struct sock_filter[], empty for none; seccomp_flags: SECCOMP_FILTER_FLAG_*.
    apparmor: name of a loaded profile, empty for unconfined.
    """

    name: str = ""
    capabilities: CapabilitySets = CapabilitySets()
    no_new_privs: bool = False
    seccomp: bytes = b""
    seccomp_flags: int = 0
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    apparmor: str = ""


class PolicyRef(Stored, frozen=True):
    """The policy that confines a container. `hash`: of the whole CompiledPolicy, SHA-256 in hex."""

    name: str
    hash: str


class PolicyReport(Record, frozen=True):
    """A loaded policy. `digest`: of its content; `containers`: number created under its name.

    handlers: runtime handlers whose pods' containers use it, "" is the default one.
    """

    name: str
    digest: str
    is_default: bool
    can_unmask: bool
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    capabilities: tuple[str, ...]
    no_new_privs: bool
    containers: int
    handlers: tuple[str, ...]


class PlannedOp(Record, frozen=True):
    """One op of a plan. `name`: as in native/ops.def; `text`: what it does, in words."""

    name: str
    text: str


class PlanReport(Record, frozen=True):
    """A container's plan. `is_sent`: as sent to its fragment; else made again from the container's record.

    facts: (name, text) pairs that describe the process and its confinement.
    """

    container_id: str
    sandbox_id: str
    is_sent: bool
    ops: tuple[PlannedOp, ...]
    facts: tuple[tuple[str, str], ...]


class ContainerMetadata(Stored, frozen=True):
    name: str
    attempt: int = 0


class EnvVar(Stored, frozen=True):
    """A variable of a process. CRI 1.36 allows any bytes: `raw` holds a value that is not UTF-8."""

    name: str
    value: str = ""
    raw: bytes = b""

    @property
    def text(self) -> str:
        """The value as os.environ would show it: undecodable bytes as surrogates (PEP 383)."""
        return self.value or self.raw.decode("utf-8", "surrogateescape")


class ContainerConfig(Stored, frozen=True):
    metadata: ContainerMetadata
    image: ImageSpec
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    envs: tuple[EnvVar, ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    log_path: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: Resources = Resources()
    security: ContainerSecurity = ContainerSecurity()
    stop_signal: str = ""  # empty: the image's, or SIGTERM; "SIGTERM", "SIGRTMIN+3"


class User(Stored, frozen=True):
    """The user of a container's process, as resolved in its image. `groups` includes `gid`."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


class ProcessRef(Stored, frozen=True):
    """Identifies a process, also after its pid was reused.

    `start_time`: field 22 of /proc/PID/stat, in clock ticks since boot (proc_pid_stat(5)).
    """

    pid: int
    start_time: int


class SandboxRecord(Stored, frozen=True):
    """The record of a pod. `state` is the last one observed in the kernel."""

    id: str
    config: SandboxConfig
    created_at: int
    runtime_handler: str = ""
    state: SandboxState = "ready"
    fragment: ProcessRef | None = None
    hostname: str = ""
    ips: tuple[str, ...] = ()
    cgroup_parent: str = ""
    pool: str = ""
    start: Literal["warm", "cold"] = "warm"
    cold_reason: str = ""  # why it was cold, "" if warm
    resources: Resources | None = None
    overhead: Resources | None = None
    selinux: SelinuxLabels | None = None  # default of its containers


class ImageConfig(Stored, frozen=True):
    """The image's settings for its process (OCI image config, `config`)."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    labels: dict[str, str] = {}


class InjectedDevice(Stored, frozen=True):
    """A device node to create: `mode` includes S_IFCHR, S_IFBLK or S_IFIFO; `access`: of r, w, m; "": none.

    `uid`, `gid`: None for those of the container's process.
    """

    path: str
    mode: int
    major: int
    minor: int
    uid: int | None
    gid: int | None
    access: str


class InjectedHook(Stored, frozen=True):
    """A program of the host to run for a container. `name`: OCI's; `timeout`: seconds, 0 for none."""

    name: str
    path: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    timeout: int


class Injection(Stored, frozen=True):
    """What CDI devices add to a container."""

    devices: tuple[InjectedDevice, ...] = ()
    mounts: tuple[Mount, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    groups: tuple[int, ...] = ()
    hooks: tuple[InjectedHook, ...] = ()


class ImageMount(Stored, frozen=True):
    """A resolved mount of an image. `stack`: folders, top first, or one file: the image at its sub path.

    `layers`: the image's; they must exist as long as the container does.
    """

    image_id: str
    stack: tuple[str, ...]
    layers: tuple[str, ...]


class ContainerRecord(Stored, frozen=True):
    id: str
    sandbox_id: str
    config: ContainerConfig
    image_id: str  # config digest
    image_ref: str  # repo digest where there is one
    image_name: str  # first tag, or the requested name
    created_at: int
    image: ImageConfig = ImageConfig()  # a copy: the image may be removed before the container
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    state: ContainerState = "created"
    reason: str = ""
    message: str = ""
    log_path: str = ""  # absolute, "" for none
    process: ProcessRef | None = None
    user: User = User()
    stop_signal: str = "SIGTERM"
    cgroup: str = ""
    resources: Resources = Resources()
    layers: tuple[str, ...] = ()  # snapshot: read-only layer folders, top first
    injection: Injection | None = None  # None: no CDI device was requested
    image_mounts: tuple[ImageMount, ...] = ()  # one for each of config.mounts with an image, in their order
    selinux: SelinuxLabels | None = None
    policy: PolicyRef | None = None  # None: created by a daemon that recorded none
    driver: str = "native"  # the runtime driver that it was created with


class ContainerEvent(Record, frozen=True):
    """An event of a container, or of a pod (then `object_id` is the pod's), and the state right after it."""

    kind: EventKind
    object_id: str
    created_at: int
    pod: SandboxRecord
    containers: tuple[ContainerRecord, ...]


class Image(Record, frozen=True):
    """One image as CRI reports it: `id` is the config digest, names are canonical."""

    id: str
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    size: int = 0
    config: ImageConfig = ImageConfig()
    pinned: bool = False


class AuthConfig(Record, frozen=True):
    """Credentials of one request: never logged, never stored. `repr` hides them."""

    username: str = ""
    password: str = ""
    auth: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"AuthConfig(username={self.username!r}, server_address={self.server_address!r}, …)"


class FilesystemUsage(Record, frozen=True):
    timestamp: int
    mountpoint: str
    used_bytes: int
    inodes_used: int


class Streams(Record, frozen=True):
    """The streams that a client of Exec or Attach gets; with a terminal there is no stderr."""

    tty: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False


class ExecResult(Record, frozen=True):
    """The result of an ExecSync; a non-zero `exit_code` is not an error."""

    stdout: bytes
    stderr: bytes
    exit_code: int


class RuntimeVersion(Record, frozen=True):
    """`name` prefixes the kubelet's container ids and must not change; `version` has at least two numbers."""

    name: str
    version: str


class RuntimeCondition(Record, frozen=True):
    """`RuntimeReady` and `NetworkReady` are required; `reason` is one CamelCase word."""

    type: str
    status: bool
    reason: str = ""
    message: str = ""


class RuntimeHandler(Record, frozen=True):
    """One value of a RuntimeClass's `handler`; `name` "" is the default."""

    name: str
    recursive_read_only_mounts: bool = False
    user_namespaces: bool = False


class RuntimeStatus(Record, frozen=True):
    """The node's status and features. `details` is shown unchanged by `crictl info`."""

    conditions: tuple[RuntimeCondition, ...]
    handlers: tuple[RuntimeHandler, ...] = ()
    supplemental_groups_policy: bool = False
    user_namespaces_host_network: bool = False
    details: dict[str, Any] = {}
