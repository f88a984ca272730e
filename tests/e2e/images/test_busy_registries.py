"""Registries that are busy or fail for a moment: Retry-After and pauses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from phantom_cri.images import ImageService
from phantom_cri.model import AuthConfig, ImageSpec
from tests.e2e.images.conftest import Start, layout
from tests.e2e.images.spec_registry import Asked, Behaviour, Reply, SpecRegistry
from tests.e2e.images.test_endings import until
from tests.e2e.images.test_pull import refused
from tests.e2e.images.test_registries import PULLER, Rule, is_blob


def busy(times: int, when: Callable[[Asked], bool], headers: Callable[[], dict[str, str]]) -> Rule:
    left = [times]

    def rule(asked: Asked) -> Reply | None:
        if not when(asked) or not left[0]:
            return None
        left[0] -= 1
        return Reply(429, headers(), b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}')

    return rule


async def timed(service: ImageService, name: str, auth: AuthConfig | None = None) -> float:
    began = time.monotonic()
    await service.pull(ImageSpec(image=name), auth)
    return time.monotonic() - began


@pytest.mark.parametrize("where", ["/manifests/", "/token", "/blobs/"])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_waited_for(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path, where: str, form: str
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")

    def headers() -> dict[str, str]:
        return {"Retry-After": "1" if form == "seconds" else formatdate(int(time.time()) + 2, usegmt=True)}

    spec_registry.behaviour = Behaviour(auth="bearer", rule=busy(1, lambda each: where in each.path, headers))
    took = await timed(await start(), name, PULLER)
    assert 0.9 < took < 6
    asked = len([each for each in spec_registry.asked if where in each.path])
    assert asked == {"/manifests/": 4, "/token": 2, "/blobs/": 3}[where], "once more than without"


async def test_waits_are_no_failures(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    spec_registry.behaviour.rule = busy(7, is_blob, lambda: {"Retry-After": "1"})
    assert 6 < await timed(await start(), name) < 20


async def test_one_wait_counts_for_all_requests_to_the_host(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    spec_registry.add(layout(tmp_path / "other", count=1), "other")
    service = await start()
    spec_registry.behaviour.rule = busy(1, is_blob, lambda: {"Retry-After": "2"})
    first = asyncio.ensure_future(service.pull(ImageSpec(image=name)))
    await until(lambda: any(is_blob(each) for each in spec_registry.asked))
    await asyncio.sleep(0.2)
    asked = len(spec_registry.asked)
    second = asyncio.ensure_future(service.pull(ImageSpec(image=f"{spec_registry.host}/other")))
    await asyncio.sleep(1)
    assert len(spec_registry.asked) == asked, "nothing was asked meanwhile"
    await asyncio.gather(first, second)


async def test_who_wants_to_be_left_alone_for_hours_is(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    service = await start()
    spec_registry.behaviour.rule = busy(9, lambda each: True, lambda: {"Retry-After": "21600"})
    began = time.monotonic()
    error = await refused(service, name)
    assert time.monotonic() - began < 2
    assert str(error).startswith(f'RegistryUnavailable: failed to pull "{name}": resolve latest: ')
    assert "429 Too Many Requests" in str(error)
    assert "to be asked again after 21600 s" in str(error)
    assert len(spec_registry.asked) == 1
    spec_registry.behaviour = Behaviour()
    assert await timed(service, name) < 2, "another pull asks at once"


async def test_too_many_requests_without_a_time_is_no_quick_failure(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    spec_registry.behaviour.rule = busy(2, is_blob, dict)
    assert 1 < await timed(await start(), name) < 10


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 520])
async def test_what_may_pass_is_tried_again(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path, status: int
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    left = [4]

    def rule(asked: Asked) -> Reply | None:
        left[0] -= 1
        return Reply(status) if left[0] >= 0 else None

    spec_registry.behaviour.rule = rule
    assert 0.5 < await timed(await start(), name) < 6
    spec_registry.behaviour.rule = lambda asked: Reply(status)
    spec_registry.asked.clear()
    error = await refused(await start(), name)
    assert str(error).startswith("RegistryUnavailable: ")
    assert len(spec_registry.asked) == 5
