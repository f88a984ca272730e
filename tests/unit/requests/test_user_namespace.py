"""What a pod may ask of a user namespace, and what it makes of a container's plan."""

from __future__ import annotations

from typing import Any

import pytest

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import ContainerConfig, IdMapping, ImageMount, ImageSpec, NamespaceOptions, User
from phantom_cri.plans import (
    ExecLaunch,
    HostDevice,
    PodIds,
    Process,
    constants,
    container_plan,
    exec_plan,
    ops,
    spawn_plan,
    user_namespace_plan,
)
from phantom_cri.requests import pod_ids
from phantom_cri.requests.user_namespace import (
    check_container_user,
    check_mapped,
    check_pod_user,
)
from tests.unit.requests.asked import container, mount, namespaces, spec_of


def mappings(*pairs: tuple[int, int, int]) -> tuple[IdMapping, ...]:
    """(inside, outside, length) of each."""
    return tuple(IdMapping(container_id=a, host_id=b, length=c) for a, b, c in pairs)


LAYERS = ("/layers/b", "/layers/a")
USUAL = mappings((0, 100_000, 65_536))


def own(**fields: Any) -> NamespaceOptions:
    return namespaces(**{"user": "pod", "uids": USUAL, "gids": USUAL, **fields})


def ops_of(config: ContainerConfig | None = None, **fields: Any) -> list[ops.Op]:
    return list(container_plan(spec_of(config or container(), pod=own(), **fields), ("host_mounts",)).ops())


def position(found: list[ops.Op], kind: type[ops.Op]) -> int:
    return next(index for index, op in enumerate(found) if isinstance(op, kind))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"user": "container"}, r"userns_options\.mode: .* not CONTAINER"),
        ({"user": "target"}, r"userns_options\.mode: .* not TARGET"),
        ({"user": "node"}, "with mode NODE"),
        ({"uids": ()}, r"userns_options\.uids: exactly one mapping is possible, not 0"),
        ({"gids": mappings((0, 9, 1), (1, 20, 1))}, r"userns_options\.gids: exactly one .* not 2"),
        ({"uids": mappings((1, 1000, 5))}, r"userns_options\.uids: id 0 must be mapped"),
        ({"uids": mappings((0, 1000, 0))}, r"userns_options\.uids: the mapping has no ids"),
        ({"gids": mappings((0, 0, 5))}, r"userns_options\.gids: host_id 0"),
        ({"uids": mappings((0, 4_294_967_290, 6))}, r"userns_options\.uids: no 6 ids follow 4294967290"),
        ({"gids": mappings((0, 100_000, 5))}, r"userns_options\.gids: 5 ids, but uids has 65536"),
        ({"network": "node"}, r"namespace_options\.network: NODE"),
        ({"pid": "node"}, r"namespace_options\.pid: NODE"),
        ({"ipc": "node"}, r"namespace_options\.ipc: NODE"),
    ],
)
def test_impossible_pods(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        check_pod_user(own(**fields))


def test_possible_pods() -> None:
    for options in (
        own(),
        own(uids=mappings((0, 1, 1)), gids=mappings((0, 7, 1))),
        own(uids=mappings((0, 4_294_967_290, 5)), gids=mappings((0, 9, 5))),
        namespaces(),
        namespaces(network="node", pid="node", ipc="node"),
    ):
        check_pod_user(options)
    assert pod_ids(own(gids=mappings((0, 7, 65_536)))) == PodIds(100_000, 65_536, 7, 65_536)
    assert pod_ids(namespaces()) is None


@pytest.mark.parametrize(
    ("asked", "pod", "words"),
    [
        (namespaces(), own(), "NODE, but the pod has POD"),
        (own(), namespaces(), "POD, but the pod has NODE"),
        (own(uids=mappings((0, 1, 65_536))), own(), "differ from the pod's"),
    ],
)
def test_a_container_has_the_pods_ids(asked: NamespaceOptions, pod: NamespaceOptions, words: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"userns_options: .*{words}"):
        check_container_user(container(security={"namespaces": asked}), pod)
    check_container_user(container(security={"namespaces": pod}), pod)


@pytest.mark.parametrize(
    ("pod", "fields", "words"),
    [
        (namespaces(), {"uid_mappings": USUAL, "gid_mappings": USUAL}, "the pod has no user namespace"),
        (own(), {"uid_mappings": USUAL}, "differ from the pod's"),
        (own(), {"gid_mappings": USUAL}, "differ from the pod's"),
        (own(), {"uid_mappings": mappings((0, 5, 5)), "gid_mappings": USUAL}, "differ from the pod's"),
        (own(), {"propagation": "bidirectional"}, "BIDIRECTIONAL is not possible"),
    ],
)
def test_impossible_mounts(pod: NamespaceOptions, fields: dict[str, Any], words: str) -> None:
    config = container(security={"namespaces": pod}, mounts=(mount("/a", "/b"), mount("/c", "/d", **fields)))
    with pytest.raises(InvalidArgument, match=rf"mounts\[1\]\..*{words}"):
        check_container_user(config, pod)


@pytest.mark.parametrize(
    ("user", "words"),
    [
        (User(uid=65_536), "user 65536"),
        (User(gid=65_536), "group 65536"),
        (User(groups=(0, 70_000)), "group 70000"),
    ],
)
def test_users_that_the_pod_lacks(user: User, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        check_mapped(user, own())
    check_mapped(user, namespaces())
    check_mapped(User(uid=65_535, gid=65_535, groups=(65_535,)), own())


def test_the_order_of_a_containers_plan() -> None:
    """Host paths as the host's root, files as the pod's, and no way back from there."""
    ids = (own().uids, own().gids)
    volume = mount("/data", "/data", uid_mappings=ids[0], gid_mappings=ids[1])
    found = ops_of(config=container(mounts=(volume, mount("/plain", "/plain"))))
    order: list[type[ops.Op]] = [
        ops.OpenTree,
        ops.OverlayMapped,
        ops.FilesAsRoot,
        ops.Root,
        ops.Pivot,
        ops.JoinUser,
        ops.Bounding,
    ]
    places = [position(found, kind) for kind in order]
    assert places == sorted(places)
    after = found[position(found, ops.JoinUser) + 1]
    assert after == ops.Unshare(constants.CLONE_NEWNS), "else what was mounted could be taken off"
    assert not any(type(op) is ops.Overlay for op in found)


def test_only_mounts_that_ask_for_it_are_mapped() -> None:
    volume = mount("/data", "/data", uid_mappings=USUAL, gid_mappings=USUAL)
    found = ops_of(
        config=container(mounts=(volume, mount("/plain", "/plain"))),
        volumes=("/anonymous",),
        pod_files=(("/etc/hosts", "/pods/p/hosts"),),
    )
    opened = {op.slot: op.path for op in found if isinstance(op, ops.OpenTree)}
    mapped = {opened[op.slot] for op in found if isinstance(op, ops.MapIds)}
    assert mapped == {"/data", "/c/volume%2Fanonymous"}, "the pod's own files belong to its root as they are"


def test_images_are_mapped_too() -> None:
    image = mount("", "/models", readonly=True, image=ImageSpec(image="m"))
    stacked = ImageMount("m", ("/m/b", "/m/a"), ("/m/b", "/m/a"))
    found = ops_of(config=container(mounts=(image,)), mounted=(stacked,))
    assert [op.lower for op in found if isinstance(op, ops.OverlayMapped)] == [("/m/b", "/m/a"), LAYERS]


def test_devices_and_folders_have_owners() -> None:
    """The standard ones belong to the pod's root; others to whom they belong on the host."""
    disk = HostDevice("/dev/disk/vda", 0o060660, 254, 0, uid=0, gid=6)
    found = ops_of(config=container(working_dir="/work"), devices=(disk,))
    owners = {op.path: (op.uid, op.gid) for op in found if isinstance(op, ops.Mknod | ops.Mkdir)}
    assert owners["/dev/null"] == owners["/work"] == owners["/dev/disk"] == (100_000, 100_000)
    assert owners["/dev/disk/vda"] == (0, 6)


@pytest.mark.parametrize(("count", "expected"), [(65_536, ["gid=100005"]), (5, [])])
def test_the_group_of_terminals(count: int, expected: list[str]) -> None:
    ids = mappings((0, 100_000, count))
    spec = spec_of(container(), pod=own(uids=ids, gids=ids))
    plan = container_plan(spec, ("host_mounts",))
    (devpts,) = [op for op in plan.ops() if isinstance(op, ops.NewFs) and op.type == "devpts"]
    assert [option for option in devpts.options if option.startswith("gid=")] == expected


def test_without_one_nothing_changes() -> None:
    kinds = (ops.OverlayMapped, ops.FilesAsRoot, ops.JoinUser, ops.MapIds)
    plan = container_plan(spec_of(container(mounts=(mount("/a", "/b"),))), ("host_mounts",))
    assert not [op for op in plan.ops() if isinstance(op, kinds)]


def test_an_exec_joins_after_the_mounts() -> None:
    process = Process(args=("sh",), env=(), cwd="/")
    launch = ExecLaunch(container_id="c", process=process, user=User(), user_namespace=True)
    found = list(exec_plan(launch, ()).ops())
    assert position(found, ops.JoinProcess) + 1 == position(found, ops.JoinUser)


def test_the_fragments_own_plans() -> None:
    ids = PodIds(100_000, 10, 200_000, 10)
    (op,) = user_namespace_plan(ids).ops()
    owned = constants.CLONE_NEWNET | constants.CLONE_NEWIPC | constants.CLONE_NEWUTS
    assert op == ops.UserNamespace(100_000, 10, 200_000, 10, owned)
    sysctls = {op.path: op.value for op in spawn_plan(b"x", ids=ids).ops() if isinstance(op, ops.Sysctl)}
    assert sysctls["net/ipv4/ping_group_range"] == "200000 200009"
