from phantom_cri.api.cri.v1 import api_pb2 as _api_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListPoolsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPoolsResponse(_message.Message):
    __slots__ = ("pools",)
    POOLS_FIELD_NUMBER: _ClassVar[int]
    pools: _containers.RepeatedCompositeFieldContainer[Pool]
    def __init__(self, pools: _Optional[_Iterable[_Union[Pool, _Mapping]]] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("host_network", "host_pid", "host_ipc")
    HOST_NETWORK_FIELD_NUMBER: _ClassVar[int]
    HOST_PID_FIELD_NUMBER: _ClassVar[int]
    HOST_IPC_FIELD_NUMBER: _ClassVar[int]
    host_network: bool
    host_pid: bool
    host_ipc: bool
    def __init__(self, host_network: _Optional[bool] = ..., host_pid: _Optional[bool] = ..., host_ipc: _Optional[bool] = ...) -> None: ...

class Pool(_message.Message):
    __slots__ = ("name", "profile", "size", "warm", "starting", "claimed", "hits", "misses", "retired", "failed_spawns", "oldest_age", "last_error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    WARM_FIELD_NUMBER: _ClassVar[int]
    STARTING_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    MISSES_FIELD_NUMBER: _ClassVar[int]
    RETIRED_FIELD_NUMBER: _ClassVar[int]
    FAILED_SPAWNS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AGE_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    profile: Profile
    size: int
    warm: int
    starting: int
    claimed: int
    hits: int
    misses: int
    retired: int
    failed_spawns: int
    oldest_age: int
    last_error: str
    def __init__(self, name: _Optional[str] = ..., profile: _Optional[_Union[Profile, _Mapping]] = ..., size: _Optional[int] = ..., warm: _Optional[int] = ..., starting: _Optional[int] = ..., claimed: _Optional[int] = ..., hits: _Optional[int] = ..., misses: _Optional[int] = ..., retired: _Optional[int] = ..., failed_spawns: _Optional[int] = ..., oldest_age: _Optional[int] = ..., last_error: _Optional[str] = ...) -> None: ...

class ListPodStartsRequest(_message.Message):
    __slots__ = ("pod_sandbox_id",)
    POD_SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    pod_sandbox_id: str
    def __init__(self, pod_sandbox_id: _Optional[str] = ...) -> None: ...

class ListPodStartsResponse(_message.Message):
    __slots__ = ("pods",)
    PODS_FIELD_NUMBER: _ClassVar[int]
    pods: _containers.RepeatedCompositeFieldContainer[PodStart]
    def __init__(self, pods: _Optional[_Iterable[_Union[PodStart, _Mapping]]] = ...) -> None: ...

class PodStart(_message.Message):
    __slots__ = ("pod_sandbox_id", "pool", "warm", "cold_reason", "stages")
    POD_SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    WARM_FIELD_NUMBER: _ClassVar[int]
    COLD_REASON_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    pod_sandbox_id: str
    pool: str
    warm: bool
    cold_reason: str
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    def __init__(self, pod_sandbox_id: _Optional[str] = ..., pool: _Optional[str] = ..., warm: _Optional[bool] = ..., cold_reason: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ...) -> None: ...

class Stage(_message.Message):
    __slots__ = ("name", "duration")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    duration: int
    def __init__(self, name: _Optional[str] = ..., duration: _Optional[int] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies",)
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    def __init__(self, policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("name", "digest", "default", "can_unmask", "masked_paths", "readonly_paths", "capabilities", "no_new_privs", "containers", "handlers")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    CAN_UNMASK_FIELD_NUMBER: _ClassVar[int]
    MASKED_PATHS_FIELD_NUMBER: _ClassVar[int]
    READONLY_PATHS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    NO_NEW_PRIVS_FIELD_NUMBER: _ClassVar[int]
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    HANDLERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    default: bool
    can_unmask: bool
    masked_paths: _containers.RepeatedScalarFieldContainer[str]
    readonly_paths: _containers.RepeatedScalarFieldContainer[str]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    no_new_privs: bool
    containers: int
    handlers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., default: _Optional[bool] = ..., can_unmask: _Optional[bool] = ..., masked_paths: _Optional[_Iterable[str]] = ..., readonly_paths: _Optional[_Iterable[str]] = ..., capabilities: _Optional[_Iterable[str]] = ..., no_new_privs: _Optional[bool] = ..., containers: _Optional[int] = ..., handlers: _Optional[_Iterable[str]] = ...) -> None: ...

class ShowPlanRequest(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class ShowPlanResponse(_message.Message):
    __slots__ = ("container_id", "pod_sandbox_id", "sent", "ops", "facts")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    POD_SANDBOX_ID_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    OPS_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    pod_sandbox_id: str
    sent: bool
    ops: _containers.RepeatedCompositeFieldContainer[PlannedOp]
    facts: _containers.RepeatedCompositeFieldContainer[PlanFact]
    def __init__(self, container_id: _Optional[str] = ..., pod_sandbox_id: _Optional[str] = ..., sent: _Optional[bool] = ..., ops: _Optional[_Iterable[_Union[PlannedOp, _Mapping]]] = ..., facts: _Optional[_Iterable[_Union[PlanFact, _Mapping]]] = ...) -> None: ...

class PlannedOp(_message.Message):
    __slots__ = ("name", "text")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    text: str
    def __init__(self, name: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class PlanFact(_message.Message):
    __slots__ = ("name", "text")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    text: str
    def __init__(self, name: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("image", "auth")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    AUTH_FIELD_NUMBER: _ClassVar[int]
    image: _api_pb2.ImageSpec
    auth: _api_pb2.AuthConfig
    def __init__(self, image: _Optional[_Union[_api_pb2.ImageSpec, _Mapping]] = ..., auth: _Optional[_Union[_api_pb2.AuthConfig, _Mapping]] = ...) -> None: ...

class LoadImageRequest(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("layers", "images")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedCompositeFieldContainer[Layer]
    images: _containers.RepeatedCompositeFieldContainer[LoadedImage]
    def __init__(self, layers: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., images: _Optional[_Iterable[_Union[LoadedImage, _Mapping]]] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("digest", "state", "done", "total")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        WAITING: _ClassVar[Layer.State]
        DOWNLOADING: _ClassVar[Layer.State]
        UNPACKING: _ClassVar[Layer.State]
        DONE: _ClassVar[Layer.State]
        EXISTS: _ClassVar[Layer.State]
    WAITING: Layer.State
    DOWNLOADING: Layer.State
    UNPACKING: Layer.State
    DONE: Layer.State
    EXISTS: Layer.State
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    digest: str
    state: Layer.State
    done: int
    total: int
    def __init__(self, digest: _Optional[str] = ..., state: _Optional[_Union[Layer.State, str]] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class LoadedImage(_message.Message):
    __slots__ = ("id", "repo_tags", "repo_digests", "size")
    ID_FIELD_NUMBER: _ClassVar[int]
    REPO_TAGS_FIELD_NUMBER: _ClassVar[int]
    REPO_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    id: str
    repo_tags: _containers.RepeatedScalarFieldContainer[str]
    repo_digests: _containers.RepeatedScalarFieldContainer[str]
    size: int
    def __init__(self, id: _Optional[str] = ..., repo_tags: _Optional[_Iterable[str]] = ..., repo_digests: _Optional[_Iterable[str]] = ..., size: _Optional[int] = ...) -> None: ...

class DoctorRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DoctorResponse(_message.Message):
    __slots__ = ("checks",)
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[Check]
    def __init__(self, checks: _Optional[_Iterable[_Union[Check, _Mapping]]] = ...) -> None: ...

class Check(_message.Message):
    __slots__ = ("name", "state", "detail", "required")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OK: _ClassVar[Check.State]
        DEGRADED: _ClassVar[Check.State]
        MISSING: _ClassVar[Check.State]
        UNUSED: _ClassVar[Check.State]
    OK: Check.State
    DEGRADED: Check.State
    MISSING: Check.State
    UNUSED: Check.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: Check.State
    detail: str
    required: bool
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[Check.State, str]] = ..., detail: _Optional[str] = ..., required: _Optional[bool] = ...) -> None: ...
