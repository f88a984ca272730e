"""The node service (`api/phantom/v1/node.proto`), for what CRI lacks.

The Protocols below describe the verbs' results; the records of other packages satisfy them, so that neither
side imports the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Literal, Protocol

from phantom_cri.api.phantom.v1 import node_pb2 as wire
from phantom_cri.cri.convert.common import image_spec_from
from phantom_cri.cri.convert.image import auth_from, image_name_from
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import AuthConfig, Image, ImageSpec, PlanReport, PolicyReport, SandboxRecord

LayerState = Literal["waiting", "downloading", "unpacking", "done", "exists"]

REPORT_SECONDS = 0.05
"""Seconds between two messages of progress."""

_NANOSECONDS = 1_000_000_000


class ProfileShape(Protocol):
    @property
    def host_network(self) -> bool: ...
    @property
    def host_pid(self) -> bool: ...
    @property
    def host_ipc(self) -> bool: ...


class PoolShape(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def warm(self) -> int: ...
    @property
    def starting(self) -> int: ...
    @property
    def claimed(self) -> int: ...
    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    @property
    def retired(self) -> int: ...
    @property
    def failed_spawns(self) -> int: ...
    @property
    def oldest_seconds(self) -> float: ...
    @property
    def last_error(self) -> str: ...


class CheckShape(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> Literal["ok", "degraded", "missing", "unused"]: ...
    @property
    def detail(self) -> str: ...
    @property
    def required(self) -> bool: ...


class LayerReport(Protocol):
    """Called on progress: bytes done, and total (0: unknown). From any thread; never blocks."""

    def __call__(self, digest: str, state: LayerState, done: int, total: int) -> None: ...


class NodeVerbs(Protocol):
    """Every verb raises `PhantomError`s; a cancelled one cleans up."""

    async def list_pools(self) -> Iterable[tuple[ProfileShape, PoolShape]]: ...

    async def list_pod_starts(self, sandbox_id: str) -> Iterable[tuple[SandboxRecord, Mapping[str, int]]]:
        """Pods (all for "") with the known durations of their start's stages, in order, in nanoseconds."""
        ...

    async def list_policies(self) -> Iterable[PolicyReport]: ...

    async def show_plan(self, container_id: str) -> PlanReport: ...

    async def pull_with_progress(
        self, spec: ImageSpec, auth: AuthConfig | None, report: LayerReport
    ) -> Image: ...

    async def load_image(self, path: str, report: LayerReport) -> Iterable[Image]:
        """Load an OCI or Docker archive of the node; returns its images."""
        ...

    async def doctor(self) -> Iterable[CheckShape]: ...


class NodeService:
    """One method per RPC, as for `phantom_cri.rpc.calls.Calls`."""

    def __init__(self, verbs: NodeVerbs) -> None:
        self._verbs = verbs

    async def ListPools(self, request: wire.ListPoolsRequest) -> wire.ListPoolsResponse:
        pools = await self._verbs.list_pools()
        return wire.ListPoolsResponse(pools=[_pool(profile, pool) for profile, pool in pools])

    async def ListPodStarts(self, request: wire.ListPodStartsRequest) -> wire.ListPodStartsResponse:
        starts = await self._verbs.list_pod_starts(request.pod_sandbox_id)
        return wire.ListPodStartsResponse(pods=[_start(sandbox, stages) for sandbox, stages in starts])

    async def ListPolicies(self, request: wire.ListPoliciesRequest) -> wire.ListPoliciesResponse:
        return wire.ListPoliciesResponse(policies=map(_policy, await self._verbs.list_policies()))

    async def ShowPlan(self, request: wire.ShowPlanRequest) -> wire.ShowPlanResponse:
        return _plan(await self._verbs.show_plan(request.container_id))

    async def Pull(self, request: wire.PullRequest) -> AsyncIterator[wire.Progress]:
        image_name_from(request.image)
        spec = image_spec_from(request.image)
        auth = auth_from(request.auth) if request.HasField("auth") else None

        async def pull(report: LayerReport) -> Iterable[Image]:
            return [await self._verbs.pull_with_progress(spec, auth, report)]

        async for progress in _follow(pull):
            yield progress

    async def LoadImage(self, request: wire.LoadImageRequest) -> AsyncIterator[wire.Progress]:
        path = request.path
        if not path.startswith("/"):
            raise InvalidArgument(f"path: must be absolute, got {path!r}")
        async for progress in _follow(lambda report: self._verbs.load_image(path, report)):
            yield progress

    async def Doctor(self, request: wire.DoctorRequest) -> wire.DoctorResponse:
        return wire.DoctorResponse(checks=[_check(check) for check in await self._verbs.doctor()])


async def _follow(work: Callable[[LayerReport], Awaitable[Iterable[Image]]]) -> AsyncIterator[wire.Progress]:
    """Run `work` and yield its progress, then its result; leaving early cancels it and waits."""
    loop = asyncio.get_running_loop()
    moved: dict[str, wire.Layer] = {}
    wake = asyncio.Event()

    def report(digest: str, state: LayerState, done: int, total: int) -> None:
        layer = wire.Layer(digest=digest, state=state.upper(), done=done, total=total)
        moved[digest] = layer
        loop.call_soon_threadsafe(wake.set)

    task = asyncio.ensure_future(work(report))
    task.add_done_callback(lambda _: wake.set())
    try:
        while not task.done():
            await wake.wait()
            wake.clear()
            if moved:
                layers = [moved.pop(digest) for digest in list(moved)]
                yield wire.Progress(layers=layers)
                await asyncio.wait([task], timeout=REPORT_SECONDS)
        yield wire.Progress(layers=list(moved.values()), images=[_image(image) for image in task.result()])
    finally:
        task.cancel()
        await asyncio.wait([task])


def _pool(profile: ProfileShape, pool: PoolShape) -> wire.Pool:
    return wire.Pool(
        name=pool.name,
        profile=wire.Profile(
            host_network=profile.host_network,
            host_pid=profile.host_pid,
            host_ipc=profile.host_ipc,
        ),
        size=pool.size,
        warm=pool.warm,
        starting=pool.starting,
        claimed=pool.claimed,
        hits=pool.hits,
        misses=pool.misses,
        retired=pool.retired,
        failed_spawns=pool.failed_spawns,
        oldest_age=int(pool.oldest_seconds * _NANOSECONDS),
        last_error=pool.last_error,
    )


def _start(sandbox: SandboxRecord, stages: Mapping[str, int]) -> wire.PodStart:
    return wire.PodStart(
        pod_sandbox_id=sandbox.id,
        pool=sandbox.pool,
        warm=sandbox.start == "warm",
        cold_reason=sandbox.cold_reason,
        stages=[wire.Stage(name=name, duration=duration) for name, duration in stages.items()],
    )


def _policy(policy: PolicyReport) -> wire.Policy:
    return wire.Policy(
        name=policy.name,
        digest=policy.digest,
        default=policy.is_default,
        can_unmask=policy.can_unmask,
        masked_paths=policy.masked_paths,
        readonly_paths=policy.readonly_paths,
        capabilities=policy.capabilities,
        no_new_privs=policy.no_new_privs,
        containers=policy.containers,
        handlers=policy.handlers,
    )


def _plan(plan: PlanReport) -> wire.ShowPlanResponse:
    return wire.ShowPlanResponse(
        container_id=plan.container_id,
        pod_sandbox_id=plan.sandbox_id,
        sent=plan.is_sent,
        ops=[wire.PlannedOp(name=op.name, text=op.text) for op in plan.ops],
        facts=[wire.PlanFact(name=name, text=text) for name, text in plan.facts],
    )


def _image(image: Image) -> wire.LoadedImage:
    return wire.LoadedImage(
        id=image.id, repo_tags=image.repo_tags, repo_digests=image.repo_digests, size=image.size
    )


def _check(check: CheckShape) -> wire.Check:
    return wire.Check(
        name=check.name,
        state=check.state.upper(),
        detail=check.detail,
        required=check.required,
    )
