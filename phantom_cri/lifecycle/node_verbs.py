"""Verbs beyond CRI: pools, pod starts, policies, plans, doctor; pulls and loads with progress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from phantom_cri import doctor
from phantom_cri.errors import NotFound
from phantom_cri.images import LayerReport
from phantom_cri.lifecycle import confinement
from phantom_cri.lifecycle.image_verbs import ImageVerbs
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.lifecycle.show_plan import show_plan
from phantom_cri.model import AuthConfig, Image, ImageSpec, PlanReport, PolicyReport, SandboxRecord
from phantom_cri.pools import PoolStatistics, Profile


class NodeVerbs:
    """Implements `phantom_cri.cri.node_service.NodeVerbs`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._images = ImageVerbs(runtime)

    async def list_pools(self) -> Iterable[tuple[Profile, PoolStatistics]]:
        return [
            (profile, self._runtime.pools[profile.name].statistics()) for profile in self._runtime.profiles
        ]

    async def list_pod_starts(self, sandbox_id: str) -> Iterable[tuple[SandboxRecord, Mapping[str, int]]]:
        """Each pod with the duration of every stage of its start, in nanoseconds."""
        records = self._runtime.records
        pods = list(records.pods.values())
        if sandbox_id:
            found = records.find_pod(sandbox_id)
            if found is None:
                raise NotFound(f"pod sandbox {sandbox_id!r} not found")
            pods = [found]
        return [
            (pod.record, {name: round(seconds * 1e9) for name, seconds in pod.stages.items()}) for pod in pods
        ]

    async def list_policies(self) -> Iterable[PolicyReport]:
        return confinement.reports(self._runtime)

    async def show_plan(self, container_id: str) -> PlanReport:
        return await show_plan(self._runtime, container_id)

    async def pull_with_progress(
        self, spec: ImageSpec, auth: AuthConfig | None, report: LayerReport
    ) -> Image:
        return await self._images.pull_with_progress(spec, auth, report)

    async def load_image(self, path: str, report: LayerReport) -> Iterable[Image]:
        return await self._images.load_image(path, report)

    async def doctor(self) -> Iterable[doctor.Check]:
        return await doctor.examine()
