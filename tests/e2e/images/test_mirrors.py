"""Mirrors that are down, hang, lack, refuse, break off or lie; what that costs, and what an error says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phantom_cri.images import ImageService
from phantom_cri.model import AuthConfig, ImageSpec
from tests.e2e.images.conftest import Start, layout
from tests.e2e.images.spec_registry import PASSWORD, TOKEN, USER, Asked, Behaviour, Reply, SpecRegistry
from tests.e2e.images.test_busy_registries import timed
from tests.e2e.images.test_endings import listening
from tests.e2e.images.test_pull import layers_of, refused

PULLER = AuthConfig(username=USER, password=PASSWORD)
Configure = Callable[..., None]


@pytest.fixture
def mirror(spec_registry: SpecRegistry) -> Iterator[SpecRegistry]:
    """With all that the registry has."""
    with SpecRegistry() as running:
        running.blobs, running.tags, running.types = (
            spec_registry.blobs,
            spec_registry.tags,
            spec_registry.types,
        )
        yield running


@pytest.fixture
def configure(spec_registry: SpecRegistry, tmp_path: Path) -> Configure:
    """Writes the mirrors of `spec_registry`, by URL; the registry itself comes last."""

    def write(*mirrors: str, also: str = "", server: str = "") -> None:
        folder = tmp_path / "certs" / spec_registry.host
        folder.mkdir(parents=True, exist_ok=True)
        tables = "".join(f'[host."{url}"]\n{also}\n' for url in mirrors)
        folder.joinpath("hosts.toml").write_text(
            f'server = "{server or f"http://{spec_registry.host}"}"\n{tables}'
        )

    return write


async def forgotten(service: ImageService, name: str) -> None:
    await service.remove(name)
    service.wait_for_trash()


def always(reply: Reply) -> Behaviour:
    return Behaviour(rule=lambda asked: reply)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
@pytest.mark.parametrize("count", [1, 20])
async def test_a_mirror_that_is_down_costs_one_request(
    start: Start,
    spec_registry: SpecRegistry,
    mirror: SpecRegistry,
    configure: Configure,
    tmp_path: Path,
    status: int,
    count: int,
) -> None:
    """However many layers there are; and none at all for the next pulls."""
    name = spec_registry.add(layout(tmp_path / "image", count=count, size=1000), "app")
    configure()
    service = await start(registry_config_path=tmp_path / "certs")
    without = await timed(service, name)
    await forgotten(service, name)
    configure(f"http://{mirror.host}")
    mirror.behaviour = always(Reply(status))
    first = await timed(service, name)
    assert len(mirror.asked) == 1
    assert first - without < 1, "0.1 s on a quiet machine"
    await forgotten(service, name)
    await timed(service, name)
    assert len(mirror.asked) == 1, "it is remembered"


async def test_a_mirror_that_works_again_is_used_again(
    start: Start, spec_registry: SpecRegistry, mirror: SpecRegistry, configure: Configure, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    configure(f"http://{mirror.host}")
    mirror.behaviour = always(Reply(503))
    service = await start(registry_config_path=tmp_path / "certs")
    await service.pull(ImageSpec(image=name))
    await forgotten(service, name)
    mirror.behaviour = Behaviour()
    spec_registry.behaviour = always(Reply(503))
    await service.pull(ImageSpec(image=name))  # remembered as bad is asked last, not never
    spec_registry.asked.clear()
    await forgotten(service, name)
    await service.pull(ImageSpec(image=name))
    assert spec_registry.asked == []


async def test_when_all_are_down_for_a_moment_all_are_tried_again(
    start: Start, spec_registry: SpecRegistry, mirror: SpecRegistry, configure: Configure, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    configure(f"http://{mirror.host}")
    for each in (spec_registry, mirror):
        each.behaviour.fail_first = 3
    await (await start(registry_config_path=tmp_path / "certs")).pull(ImageSpec(image=name))


async def test_a_connection_that_was_closed_meanwhile_is_no_outage(
    start: Start, spec_registry: SpecRegistry, mirror: SpecRegistry, configure: Configure, tmp_path: Path
) -> None:
    """A server may close what it kept open at any moment, also as the next request is on its way."""
    name = spec_registry.add(layout(tmp_path / "image", count=6), "app")
    mirror.behaviour.silent_close = True
    configure(f"http://{mirror.host}")
    await (await start(registry_config_path=tmp_path / "certs")).pull(ImageSpec(image=name))
    assert spec_registry.asked == []
    assert len(mirror.asked) == 9, "a HEAD, a manifest, a config, six layers"


async def hanging(start: Start, configure: Configure, tmp_path: Path, name: str, scheme: str) -> float:
    """Seconds of a pull past a mirror that takes connections and never answers; the second one is quick."""
    async with listening() as (port, heard):
        configure(f"{scheme}://127.0.0.1:{port}")
        service = await start(registry_config_path=tmp_path / "certs")
        took = await timed(service, name)
        assert len(heard) == 1
        await forgotten(service, name)
        assert await timed(service, name) < 2
        assert len(heard) == 1
        return took


async def test_a_mirror_that_hangs_costs_a_bounded_time_once(
    start: Start, spec_registry: SpecRegistry, configure: Configure, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=5), "app")
    assert 9 < await hanging(start, configure, tmp_path, name, "http") < 13


async def test_a_mirror_that_hangs_in_its_tls_handshake(
    start: Start, spec_registry: SpecRegistry, configure: Configure, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=5), "app")
    assert 4 < await hanging(start, configure, tmp_path, name, "https") < 8


async def test_the_configured_time_to_connect_counts(
    start: Start, spec_registry: SpecRegistry, configure: Configure, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    async with listening() as (port, heard):
        configure(f"https://127.0.0.1:{port}", also='dial_timeout = "300ms"')
        assert await timed(await start(registry_config_path=tmp_path / "certs"), name) < 3
        assert len(heard) == 1


async def test_a_mirror_that_hangs_and_an_image_that_is_not_there(
    start: Start, spec_registry: SpecRegistry, configure: Configure, tmp_path: Path
) -> None:
    """The registry's word is final: nothing is gained by asking the mirror again."""
    async with listening() as (port, heard):
        configure(f"https://127.0.0.1:{port}", also='dial_timeout = "300ms"')
        service = await start(registry_config_path=tmp_path / "certs")
        began = time.monotonic()
        error = await refused(service, f"{spec_registry.host}/nothing")
        assert error.code == "NOT_FOUND"
        assert time.monotonic() - began < 3
        assert len(heard) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 400, 501])
async def test_a_mirror_that_refuses_or_lacks_falls_through(
    start: Start,
    spec_registry: SpecRegistry,
    mirror: SpecRegistry,
    configure: Configure,
    tmp_path: Path,
    status: int,
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    configure(f"http://{mirror.host}")
    service = await start(registry_config_path=tmp_path / "certs")
    mirror.behaviour = always(Reply(status))
    await service.pull(ImageSpec(image=name))
    asked = len(mirror.asked)
    await forgotten(service, name)
    await service.pull(ImageSpec(image=name))
    assert len(mirror.asked) == 2 * asked, "that is no outage: another repository may well be there"


@pytest.mark.parametrize("what", ["manifest", "layer"])
async def test_a_mirror_that_lies_falls_through(
    start: Start,
    spec_registry: SpecRegistry,
    mirror: SpecRegistry,
    configure: Configure,
    tmp_path: Path,
    what: str,
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    (layer,) = layers_of(tmp_path / "image")
    digest = spec_registry.tags["app:latest"] if what == "manifest" else layer
    mirror.behaviour.corrupt = {digest}
    configure(f"http://{mirror.host}")
    service = await start(registry_config_path=tmp_path / "certs")
    await service.pull(ImageSpec(image=name))
    assert [each.path for each in mirror.asked if each.path.endswith(digest)], "it was asked"
    spec_registry.behaviour.corrupt = {digest}
    await forgotten(service, name)
    error = await refused(service, name)
    assert error.code == "DATA_LOSS"
    assert f"{what} {digest}: all 2 endpoints failed: " in str(error)
    for host in (mirror.host, spec_registry.host):
        assert f"http://{host}/v2: " in str(error)


async def test_a_mirror_that_points_a_digest_elsewhere_falls_through(
    start: Start, spec_registry: SpecRegistry, mirror: SpecRegistry, configure: Configure, tmp_path: Path
) -> None:
    spec_registry.add(layout(tmp_path / "image"), "app")
    digest = spec_registry.tags["app:latest"]
    lie = Reply(200, {"Docker-Content-Digest": "sha256:" + "0" * 64})
    mirror.behaviour.rule = lambda asked: lie if asked.method == "HEAD" else None
    configure(f"http://{mirror.host}")
    service = await start(registry_config_path=tmp_path / "certs")
    await service.pull(ImageSpec(image=f"{spec_registry.host}/app@{digest}"))
    configure(f"http://{mirror.host}", server=f"http://{mirror.host}")
    error = await refused(service, f"{spec_registry.host}/app@{digest}")
    assert error.code == "DATA_LOSS"
    assert f"resolve {digest}: " in str(error)


async def test_the_next_endpoint_resumes_what_a_mirror_began(
    start: Start, spec_registry: SpecRegistry, mirror: SpecRegistry, configure: Configure, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1, size=3_000_000), "app")
    (layer,) = layers_of(tmp_path / "image")
    mirror.behaviour.cut = {layer: [1_500_000]}
    spec_registry.behaviour.cut = {layer: [700_000]}
    configure(f"http://{mirror.host}")
    await (await start(registry_config_path=tmp_path / "certs")).pull(ImageSpec(image=name))
    (first, *from_mirror), (second, *from_origin) = (
        each.blob_requests(layer) for each in (mirror, spec_registry)
    )
    assert "Range" not in first.headers
    assert second.headers["Range"] == "bytes=1500000-"
    (third,) = (*from_mirror, *from_origin)  # whose pause, a random one, is over first
    assert third.headers["Range"] == "bytes=2200000-"


async def test_a_lie_in_the_first_half_does_not_fail_the_honest_one(
    start: Start, spec_registry: SpecRegistry, mirror: SpecRegistry, configure: Configure, tmp_path: Path
) -> None:
    """Nobody can tell whose half was wrong, so one endpoint alone sends all of it."""
    name = spec_registry.add(layout(tmp_path / "image", count=1, size=300_000), "app")
    (layer,) = layers_of(tmp_path / "image")
    mirror.behaviour.corrupt = {layer}
    mirror.behaviour.cut = {layer: [100_000] * 20}
    configure(f"http://{mirror.host}")
    await (await start(registry_config_path=tmp_path / "certs")).pull(ImageSpec(image=name))
    assert spec_registry.blob_requests(layer)[0].headers["Range"] == "bytes=100000-"
    assert "Range" not in spec_registry.blob_requests(layer)[1].headers


# Credentials


@pytest.mark.parametrize(
    ("server_address", "mirror_gets", "origin_gets"),
    [
        ("", True, True),
        ("{origin}", False, True),
        ("http://{mirror}", True, False),
        ("elsewhere", False, False),
    ],
)
async def test_who_is_given_the_credentials(
    start: Start,
    spec_registry: SpecRegistry,
    mirror: SpecRegistry,
    configure: Configure,
    tmp_path: Path,
    server_address: str,
    mirror_gets: bool,
    origin_gets: bool,
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    configure(f"http://{mirror.host}")
    address = server_address.format(origin=spec_registry.host, mirror=mirror.host)
    auth = AuthConfig(username=USER, password=PASSWORD, server_address=address)
    service = await start(registry_config_path=tmp_path / "certs")
    for each in (mirror, spec_registry):  # each takes nobody, so that both are asked
        each.behaviour = Behaviour(auth="bearer")
        each.token = "never-given"
        each.behaviour.rule = lambda asked: (
            Reply(401) if "Basic" in asked.headers.get("Authorization", "") else None
        )
    error = await refused(service, name, auth)
    assert error.code == "UNAUTHENTICATED"

    def got(registry: SpecRegistry) -> bool:
        return any("Basic" in each.headers.get("Authorization", "") for each in registry.asked)

    assert (got(mirror), got(spec_registry)) == (mirror_gets, origin_gets)
    assert PASSWORD not in str(error)


# Errors


def reply(status: int) -> Callable[[Asked], Reply]:
    return lambda asked: Reply(status, {}, b'{"errors":[{"code":"SAID","message":"in words"}]}')


@pytest.mark.parametrize(
    ("first", "second", "origin", "code"),
    [
        (404, 404, 401, "UNAUTHENTICATED"),
        (401, 403, 404, "NOT_FOUND"),
        (404, 503, 403, "PERMISSION_DENIED"),
        (404, 404, 503, "UNKNOWN"),
        (404, 401, 503, "UNAUTHENTICATED"),
        (403, 404, 503, "PERMISSION_DENIED"),
        (503, 503, 503, "UNKNOWN"),
    ],
)
async def test_an_error_names_every_endpoint_and_has_the_most_telling_code(
    start: Start,
    spec_registry: SpecRegistry,
    mirror: SpecRegistry,
    configure: Configure,
    tmp_path: Path,
    first: int,
    second: int,
    origin: int,
    code: str,
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    with SpecRegistry() as other:
        configure(f"http://{mirror.host}", f"http://{other.host}")
        for registry, status in ((mirror, first), (other, second), (spec_registry, origin)):
            registry.behaviour.rule = reply(status)
        error = await refused(await start(registry_config_path=tmp_path / "certs"), name)
        assert error.code == code
        text = str(error).removeprefix("RegistryUnavailable: ")
        step = "manifest" if code == "NOT_FOUND" else "resolve"
        assert text.startswith(f'failed to pull "{name}": {step} latest: all 3 endpoints failed: ')
        for registry, status in ((mirror, first), (other, second), (spec_registry, origin)):
            assert f"http://{registry.host}/v2: " in text
            assert f"/v2/app/manifests/latest: {status} " in text
        assert len(text) < 1500


async def test_an_error_stays_short_however_many_endpoints_there_are(
    start: Start, spec_registry: SpecRegistry, configure: Configure, tmp_path: Path
) -> None:
    configure(*(f"http://127.0.0.1:1/{number}" for number in range(30)))
    spec_registry.behaviour.rule = lambda asked: Reply(
        404, {}, b'{"errors":[{"code":"X","message":"' + b"y" * 100_000 + b'"}]}'
    )
    error = await refused(await start(registry_config_path=tmp_path / "certs"), f"{spec_registry.host}/app")
    assert error.code == "NOT_FOUND"
    assert "all 31 endpoints failed" in str(error)
    assert f"http://{spec_registry.host}/v2: not found" in str(error), "the registry itself is always named"
    assert len(str(error)) < 5000


async def test_the_token_step_is_named(
    start: Start, spec_registry: SpecRegistry, mirror: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    spec_registry.behaviour = Behaviour(auth="bearer", realm=f"http://{mirror.host}/token?secret=s1gned")
    mirror.behaviour.rule = lambda asked: Reply(
        503, {}, b'{"errors":[{"code":"DOWN","message":"%s"}]}' % PASSWORD.encode()
    )
    error = await refused(await start(), name, PULLER)
    assert f"resolve latest: failed to fetch a token: GET http://{mirror.host}/token: 503" in str(error)
    assert "DOWN: [redacted]" in str(error)
    for secret in (PASSWORD, TOKEN, "s1gned"):
        assert secret not in str(error)


async def test_pulls_past_a_mirror_that_is_down_at_once(
    start: Start, spec_registry: SpecRegistry, mirror: SpecRegistry, configure: Configure, tmp_path: Path
) -> None:
    names = [spec_registry.add(layout(tmp_path / f"{n}", count=4, size=1000), f"app{n}") for n in range(5)]
    configure(f"http://{mirror.host}")
    mirror.behaviour = always(Reply(502))
    service = await start(registry_config_path=tmp_path / "certs")
    await asyncio.gather(*(service.pull(ImageSpec(image=name)) for name in names))
    assert len(mirror.asked) <= 5
