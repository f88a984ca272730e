"""Registries as they are: redirects, tokens, odd headers and ranges."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from phantom_cri.model import AuthConfig, ImageSpec
from tests.e2e.images.conftest import Start, layout
from tests.e2e.images.spec_registry import PASSWORD, TOKEN, USER, Asked, Behaviour, Reply, SpecRegistry
from tests.e2e.images.test_pull import certificate, layers_of, refused

PULLER = AuthConfig(username=USER, password=PASSWORD)
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
Rule = Callable[[Asked], Reply | None]


@pytest.fixture
def storage(spec_registry: SpecRegistry) -> Iterator[SpecRegistry]:
    """Another host with the same blobs."""
    with SpecRegistry() as running:
        running.blobs, running.tags, running.types = (
            spec_registry.blobs,
            spec_registry.tags,
            spec_registry.types,
        )
        running.token = "a-token-for-strangers"
        yield running


def is_blob(asked: Asked) -> bool:
    return "/blobs/" in asked.path


def redirect(location: str, when: Callable[[Asked], bool] = is_blob, status: int = 307) -> Rule:
    """`{path}` of `location` is the path that was asked for."""

    def rule(asked: Asked) -> Reply | None:
        return Reply(status, {"Location": location.format(path=asked.path)}) if when(asked) else None

    return rule


def changed(headers: dict[str, str], registry: SpecRegistry, **how: str) -> Rule:
    """Content as it is, with exactly these headers."""

    def rule(asked: Asked) -> Reply | None:
        content = registry.content(asked.path)
        return Reply(200, headers, content, **how) if content else None

    return rule


def no_secrets(registry: SpecRegistry) -> None:
    for each in registry.asked:
        text = repr(each)
        assert PASSWORD not in text
        assert TOKEN not in text
        assert BASIC not in text
        assert "x-configured" not in {name.lower() for name in each.headers}
        assert not each.certificate


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_blobs_and_manifests_from_another_host_with_its_own_tokens(
    start: Start, spec_registry: SpecRegistry, storage: SpecRegistry, tmp_path: Path, status: int
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    rule = redirect(
        f"http://{storage.host}{{path}}?X-Signature=s1gned", lambda each: each.path != "/token", status
    )
    spec_registry.behaviour = Behaviour(rule=rule)
    storage.behaviour = Behaviour(auth="anonymous")
    await (await start()).pull(ImageSpec(image=name), PULLER)
    no_secrets(storage)
    tokens = [each for each in storage.asked if each.path == "/token"]
    assert len(tokens) == 1, "one for all requests to that host"
    assert not any("Authorization" in each.headers for each in tokens)
    blobs = [each for each in storage.asked if is_blob(each)]
    assert {each.headers.get("Authorization") for each in blobs} == {"Bearer a-token-for-strangers"}
    assert not any("a-token-for-strangers" in repr(each) for each in spec_registry.asked)


async def test_our_own_token_stays_when_both_hosts_want_one(
    start: Start, spec_registry: SpecRegistry, storage: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    spec_registry.behaviour = Behaviour(auth="bearer", redirect=f"http://{storage.host}")
    storage.behaviour = Behaviour(auth="anonymous")
    await (await start()).pull(ImageSpec(image=name), PULLER)
    no_secrets(storage)


async def test_several_hops_relative_ones_and_back(
    start: Start, spec_registry: SpecRegistry, storage: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")

    def origin(asked: Asked) -> Reply | None:
        if is_blob(asked) and "hop" not in asked.query:
            return Reply(302, {"Location": "?hop=1"})
        if asked.query.get("hop") == ["1"]:
            return Reply(302, {"Location": f"//{storage.host}{asked.path}"})
        return None

    spec_registry.behaviour = Behaviour(auth="bearer", rule=origin)
    storage.behaviour = Behaviour(rule=redirect(f"http://{spec_registry.host}{{path}}?hop=3"))
    await (await start()).pull(ImageSpec(image=name), PULLER)
    no_secrets(storage)
    last = [each for each in spec_registry.asked if each.query.get("hop") == ["3"]]
    assert len(last) == 4
    assert {each.headers["Authorization"] for each in last} == {f"Bearer {TOKEN}"}, "it is at home again"


async def test_a_user_in_a_redirect_does_not_replace_our_token(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    once = redirect(
        f"http://u:p@{spec_registry.host}{{path}}?again=1", lambda each: "again" not in each.query
    )
    spec_registry.behaviour = Behaviour(
        auth="bearer", rule=lambda asked: once(asked) if is_blob(asked) else None
    )
    await (await start()).pull(ImageSpec(image=name), PULLER)


async def test_redirects_without_end(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    spec_registry.behaviour = Behaviour(rule=redirect("{path}"))
    error = await refused(await start(), name)
    assert error.code == "FAILED_PRECONDITION"
    assert "more than 10 redirects" in str(error)
    assert len([each for each in spec_registry.asked if is_blob(each)]) == 11


@pytest.mark.parametrize(
    "location", ["ftp://{host}/x", "http://[bad", "http://h:99999999/", "file:///etc/passwd"]
)
async def test_redirects_to_what_is_no_url(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path, location: str
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    spec_registry.behaviour = Behaviour(rule=redirect(location.replace("{host}", spec_registry.host)))
    error = await refused(await start(), name)
    assert error.code == "FAILED_PRECONDITION"
    assert "redirects to no http or https URL" in str(error)


@pytest.mark.parametrize(("status", "code"), [(401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED")])
async def test_a_refusal_after_a_redirect_names_its_host_and_the_step(
    start: Start,
    spec_registry: SpecRegistry,
    storage: SpecRegistry,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    status: int,
    code: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    (layer,) = layers_of(tmp_path / "image")
    rule = redirect(f"http://u:p@{storage.host}{{path}}?X-Signature=s1gned", lambda each: layer in each.path)
    spec_registry.behaviour = Behaviour(rule=rule)
    said = json.dumps({"errors": [{"code": "DENIED", "message": "expired"}]}).encode()
    basic = {"WWW-Authenticate": 'Basic realm="storage"'}
    storage.behaviour = Behaviour(rule=lambda asked: Reply(status, basic, said))
    error = await refused(await start(), name, PULLER)
    assert error.code == code
    assert f'failed to pull "{name}": layer {layer}: ' in str(error)
    assert f"GET http://{storage.host}/v2/app/blobs/{layer}: {status}" in str(error)
    assert f"redirected from http://{spec_registry.host}/v2/app/blobs/{layer}" in str(error)
    assert "DENIED: expired" in str(error)
    for secret in ("s1gned", "u:p"):
        assert secret not in str(error)
        assert secret not in caplog.text
    no_secrets(storage)


@contextmanager
def secure(folder: Path) -> Iterator[tuple[SpecRegistry, str, str]]:
    """A registry with TLS that takes client certificates; with the files of its authority and a client."""
    cert, key = certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(cert)
    context.verify_mode = ssl.CERT_OPTIONAL
    with SpecRegistry(context) as running:
        yield running, cert, key


async def test_from_tls_to_plain_and_back_and_to_another_port(start: Start, tmp_path: Path) -> None:
    with secure(tmp_path) as (origin, cert, key), SpecRegistry() as plain, SpecRegistry() as last:
        origin.add(layout(tmp_path / "image"), "app")
        plain.blobs = last.blobs = origin.blobs
        folder = tmp_path / "certs" / "site.example"
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(
            f'server = "https://{origin.host}"\nca = "{cert}"\nclient = [["{cert}", "{key}"]]\n'
            '[header]\nx-configured = ["one", "two"]\n'
        )
        origin.behaviour = Behaviour(
            auth="bearer",
            realm=f"https://{origin.host}/token",
            rule=redirect(
                f"http://{plain.host}{{path}}", lambda each: is_blob(each) and not each.query.get("back")
            ),
        )
        plain.behaviour = Behaviour(rule=redirect(f"http://{last.host}{{path}}"))
        last.behaviour = Behaviour(rule=redirect(f"https://{origin.host}{{path}}?back=1"))
        await (await start(registry_config_path=tmp_path / "certs")).pull(
            ImageSpec(image="site.example/app"), PULLER
        )
        for stranger in (plain, last):
            assert stranger.asked
            no_secrets(stranger)
        own = [each for each in origin.asked if each.path != "/token"]
        assert all(each.certificate for each in origin.asked)
        assert all(each.headers["x-configured"] for each in own)
        assert own[-1].headers["Authorization"] == f"Bearer {TOKEN}"


async def test_the_client_certificate_stays_at_home(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with secure(tmp_path / "a") as (origin, cert, key), secure(tmp_path / "b") as (other, authority, _):
        name = origin.add(layout(tmp_path / "image"), "app")
        other.blobs = origin.blobs
        folder = tmp_path / "certs" / origin.host
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(
            f'ca = ["{cert}", "{authority}"]\nclient = [["{cert}", "{key}"]]\n'
            '[header]\nx-configured = "one"\n'
        )
        origin.behaviour = Behaviour(rule=redirect(f"https://{other.host}{{path}}"))
        await (await start(registry_config_path=tmp_path / "certs")).pull(ImageSpec(image=name), PULLER)
        assert all(each.certificate for each in origin.asked)
        assert other.asked
        no_secrets(other)


# Tokens


async def test_a_realm_at_another_host_gets_the_credentials_by_the_protocol_only(
    start: Start, spec_registry: SpecRegistry, storage: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    storage.token = TOKEN
    spec_registry.behaviour = Behaviour(auth="bearer", realm=f"http://{storage.host}/token")
    storage.behaviour = Behaviour(auth="bearer")
    await (await start()).pull(ImageSpec(image=name), PULLER)
    (token,) = storage.asked
    assert token.headers["Authorization"].startswith("Basic ")
    assert token.query == {"service": ["tests"], "scope": ["repository:app:pull"]}


async def test_credentials_do_not_follow_a_redirect_of_the_realm(
    start: Start, spec_registry: SpecRegistry, storage: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    rule = redirect(f"http://{storage.host}/token?service=tests", lambda each: each.path == "/token")
    spec_registry.behaviour = Behaviour(auth="bearer", rule=rule)
    error = await refused(await start(), name, PULLER)
    assert error.code == "UNAUTHENTICATED"
    assert storage.asked
    no_secrets(storage)


async def test_a_realm_in_the_clear_gets_no_credentials(start: Start, tmp_path: Path) -> None:
    with secure(tmp_path) as (origin, cert, _):
        origin.add(layout(tmp_path / "image"), "app")
        folder = tmp_path / "certs" / "site.example"
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(f'server = "https://{origin.host}"\nca = "{cert}"\n')
        origin.behaviour = Behaviour(auth="bearer", realm="http://tokens.example/token")
        error = await refused(
            await start(registry_config_path=tmp_path / "certs"), "site.example/app", PULLER
        )
        assert error.code == "UNAUTHENTICATED"
        assert "token: credentials are not sent in the clear to http://tokens.example/token" in str(error)


async def test_a_realm_that_a_redirect_target_names_gets_nothing_of_ours(
    start: Start, spec_registry: SpecRegistry, storage: SpecRegistry, tmp_path: Path
) -> None:
    """Not even if it is the realm at our own registry."""
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    spec_registry.behaviour = Behaviour(auth="bearer", redirect=f"http://{storage.host}")
    storage.behaviour = Behaviour(auth="bearer", realm=f"http://{spec_registry.host}/token")
    error = await refused(await start(), name, PULLER)
    assert error.code == "UNAUTHENTICATED"
    tokens = [each.headers.get("Authorization") for each in spec_registry.asked if each.path == "/token"]
    assert tokens[0] is not None, "the registry's own challenge"
    assert tokens[1:], "the stranger's"
    assert set(tokens[1:]) == {None}
    no_secrets(storage)


# Headers


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/octet-stream",
        "application/json",
        "APPLICATION/VND.OCI.IMAGE.MANIFEST.V1+JSON",
        "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
        "nonsense",
        "",
    ],
)
@pytest.mark.parametrize("length", ["length", "chunked", "close"])
async def test_the_document_decides_not_its_content_type(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path, content_type: str, length: str
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    headers = {"Content-Type": content_type} if content_type else {}
    spec_registry.behaviour.rule = changed(headers, spec_registry, length=length)
    await (await start()).pull(ImageSpec(image=name))


@pytest.mark.parametrize(
    "head",
    [
        Reply(400),
        Reply(404),
        Reply(405),
        Reply(501),
        Reply(200, {"Content-Length": "7"}),
        Reply(200, {"Content-Length": "7", "Docker-Content-Digest": "md5:nonsense"}),
        Reply(200, length="chunked"),
    ],
    ids=repr,
)
async def test_registries_that_do_not_know_head(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path, head: Reply
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    spec_registry.behaviour.rule = lambda asked: head if asked.method == "HEAD" else None
    service = await start()
    await service.pull(ImageSpec(image=name))
    assert len([each for each in spec_registry.asked if "/manifests/" in each.path]) == 2
    await service.pull(ImageSpec(image=f"{spec_registry.host}/app@{spec_registry.tags['app:latest']}"))


@pytest.mark.parametrize("length", ["length", "chunked"])
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
async def test_content_that_is_compressed_on_the_way(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path, encoding: str, length: str
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")

    def rule(asked: Asked) -> Reply | None:
        content = spec_registry.content(asked.path)
        return Reply(200, {"Content-Encoding": encoding}, gzip.compress(content), length) if content else None

    spec_registry.behaviour.rule = rule
    await (await start()).pull(ImageSpec(image=name))


@pytest.mark.parametrize("length", ["length", "chunked"])
async def test_content_that_only_claims_to_be_compressed(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path, length: str
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    spec_registry.behaviour.rule = changed({"Content-Encoding": "gzip"}, spec_registry, length=length)
    await (await start()).pull(ImageSpec(image=name))


async def test_an_encoding_nobody_asked_for(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    (layer,) = layers_of(tmp_path / "image")
    spec_registry.behaviour.rule = lambda asked: (
        Reply(200, {"Content-Encoding": "br"}, b"short") if layer in asked.path else None
    )
    error = await refused(await start(), name)
    assert error.code == "FAILED_PRECONDITION"
    assert f"layer {layer}: Content-Encoding 'br', which was not requested" in str(error)


async def test_a_small_answer_that_unpacks_to_a_huge_one(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    (layer,) = layers_of(tmp_path / "image")
    bomb = gzip.compress(bytes(300 << 20), 1)

    def rule(asked: Asked) -> Reply | None:
        if layer in asked.path or "/manifests/" in asked.path:
            return Reply(200, {"Content-Encoding": "gzip"}, bomb)
        return None

    service = await start()
    spec_registry.behaviour.rule = rule
    assert "answer longer than" in str(await refused(service, name))
    spec_registry.behaviour.rule = lambda asked: rule(asked) if is_blob(asked) else None
    assert "longer than its" in str(await refused(service, name))


Ranges = Callable[[bytes, int], Reply]


@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        (lambda content, begin: Reply(206, {"Content-Range": f"bytes 0-{len(content)}/*"}, content), 2),
        (lambda content, begin: Reply(206, {"Content-Range": "bytes 10-99/100"}, content[10:]), 3),
        (lambda content, begin: Reply(206, {}, content[begin:]), 2),
        (lambda content, begin: Reply(206, {}, content[begin:], "chunked"), 3),
        (lambda content, begin: Reply(206, {}, content), 3),
        (lambda content, begin: Reply(200, {}, content, "close"), 2),
        (lambda content, begin: Reply(416, {"Content-Range": f"bytes */{len(content)}"}), 3),
        (
            lambda content, begin: Reply(
                206,
                {"Content-Range": f"bytes {begin}-99/100", "Content-Encoding": "gzip"},
                gzip.compress(content)[begin:],
            ),
            3,
        ),
    ],
    ids=["whole", "other", "unsaid", "unsaid-chunked", "unsaid-whole", "200", "416", "encoded"],
)
async def test_odd_answers_to_the_rest_of_a_blob(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path, answer: Ranges, requests: int
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    (layer,) = layers_of(tmp_path / "image")
    content = spec_registry.blobs[layer]
    spec_registry.behaviour.cut = {layer: [50_000]}
    spec_registry.behaviour.rule = lambda asked: answer(content, 50_000) if "Range" in asked.headers else None
    await (await start()).pull(ImageSpec(image=name))
    assert len(spec_registry.blob_requests(layer)) == requests


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
async def test_servers_that_close_after_each_answer(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path, version: str
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    rule = changed({"Connection": "close"}, spec_registry, length="close")
    spec_registry.behaviour = Behaviour(version=version, rule=rule)
    await (await start()).pull(ImageSpec(image=name))


async def test_a_healthy_registry_is_asked_once_for_each_thing(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    spec_registry.behaviour.auth = "bearer"
    service = await start()
    await service.pull(ImageSpec(image=name), PULLER)
    kinds = [(each.method, each.path.rpartition("/")[0]) for each in spec_registry.asked]
    assert kinds[:4] == [
        ("HEAD", "/v2/app/manifests"),  # 401
        ("GET", ""),  # token
        ("HEAD", "/v2/app/manifests"),
        ("GET", "/v2/app/manifests"),
    ]
    assert kinds[4:] == [("GET", "/v2/app/blobs")] * 4
    spec_registry.asked.clear()
    await service.pull(ImageSpec(image=name), PULLER)
    assert len(spec_registry.asked) == 3
