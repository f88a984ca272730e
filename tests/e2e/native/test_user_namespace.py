"""The pod's user namespace: made once, whole or not at all; layers mapped into it in all three ways."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.native import raw
from tests.e2e.native.bed import FIRST_SLOT, ROOT_SLOT, Bed, children_of, fds_of, mounts_of, start
from tests.e2e.native.raw import Fragment, Op, Plan, Refused, eventually

pytestmark = [pytest.mark.root, pytest.mark.kernel("user_namespaces")]

FIRST, COUNT = 100_000, 65_536
OWNED = raw.NEWNET | raw.NEWIPC | raw.NEWUTS
MAKE: Op = ("USER_NAMESPACE", FIRST, COUNT, FIRST + 1, COUNT, OWNED)
WAYS = [0, raw.OVERLAY_VOLATILE, raw.OVERLAY_JOINED, raw.OVERLAY_CLASSIC]
INSIDE: list[Op] = [("JOIN_USER",), ("UNSHARE", raw.NEWNS)]


@pytest.fixture
def outside(bed: Bed) -> Fragment:
    """A fragment in the host's network, ipc and uts namespaces, as one is born that gets its own later."""
    return bed.fragment(raw.NEWNS | raw.NEWPID)


@pytest.fixture
def made(outside: Fragment) -> Fragment:
    outside.client.adopt(Plan(ops=[MAKE]))
    return outside


@pytest.fixture
def layers(bed: Bed) -> Iterator[list[str]]:
    """Two over busybox; what they hold has several owners."""
    found = []
    for number, uid in enumerate((0, 1000)):
        folder = bed.scratch / f"layer{number}"
        folder.mkdir()
        (folder / f"of-{uid}").write_text("x")
        os.chown(folder / f"of-{uid}", uid, uid)
        found.append(str(folder))
    (bed.scratch / "upper").mkdir()
    os.chown(bed.scratch / "upper", FIRST, FIRST + 1)
    (bed.scratch / "work").mkdir()
    yield [*found, str(bed.rootfs)]


def mapped_root(bed: Bed, layers: list[str], flags: int) -> Op:
    upper, work = str(bed.scratch / "upper"), str(bed.scratch / "work")
    return ("OVERLAY_MAPPED", ROOT_SLOT, layers, upper, work, flags)


def namespaces(pid: int) -> dict[str, str]:
    return {
        kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("user", "net", "ipc", "uts", "mnt", "pid")
    }


def test_the_fragment_stays_outside(outside: Fragment) -> None:
    before, fds = namespaces(outside.pid), fds_of(outside.pid)
    outside.client.adopt(Plan(ops=[MAKE]))
    after = namespaces(outside.pid)
    assert {kind for kind in after if after[kind] != before[kind]} == {"net", "ipc", "uts"}
    assert after["user"] == os.readlink("/proc/self/ns/user")
    eventually(lambda: len(fds_of(outside.pid)) == len(fds) + 1)  # it keeps the user namespace
    assert children_of(outside.pid) == []


def test_only_once(made: Fragment) -> None:
    before = namespaces(made.pid)
    with pytest.raises(Refused) as refused:
        made.client.adopt(Plan(ops=[MAKE]))
    assert refused.value.error == errno.EEXIST
    assert namespaces(made.pid) == before


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (("USER_NAMESPACE", FIRST, 0, FIRST, COUNT, OWNED), errno.EINVAL),
        (("USER_NAMESPACE", (1 << 32) - 2, 10, FIRST, COUNT, OWNED), errno.EINVAL),
        (("USER_NAMESPACE", FIRST, COUNT, 1 << 32, COUNT, OWNED), errno.EINVAL),
        (("USER_NAMESPACE", FIRST, COUNT, FIRST, 1 << 40, OWNED), errno.EINVAL),
        (("USER_NAMESPACE", FIRST, COUNT, FIRST, COUNT, OWNED | raw.NEWNS), errno.ENOSYS),
    ],
)
def test_a_failure_leaves_nothing(outside: Fragment, op: Op, error: int) -> None:
    before, fds = namespaces(outside.pid), fds_of(outside.pid)
    with pytest.raises(Refused) as refused:
        outside.client.adopt(Plan(ops=[op]))
    assert refused.value.error == error
    assert (namespaces(outside.pid), children_of(outside.pid)) == (before, [])
    eventually(lambda: fds_of(outside.pid) == fds)  # the plan's own is closed once the answer is out
    outside.client.adopt(Plan(ops=[MAKE]))


def test_it_is_the_fragments_own_to_make(bed: Bed, fragment: Fragment) -> None:
    """In a container's plan the namespace would belong to a child, and end with it."""
    with pytest.raises(Refused) as refused:
        bed.run(fragment, bed.container(["/bin/true"], gather=[("JOIN_USER",)]))
    assert refused.value.error == errno.ESRCH
    with pytest.raises(Refused) as refused:
        bed.run(fragment, bed.container(["/bin/true"], before_pivot=[("FILES_AS_ROOT",)]))
    assert refused.value.error == errno.ESRCH


@pytest.mark.parametrize("flags", WAYS)
def test_layers_are_mapped(bed: Bed, made: Fragment, layers: list[str], flags: int) -> None:
    before = mounts_of(os.getpid())
    script = "stat -c %u:%g / /of-0 /of-1000 /bin/busybox; echo new > /of-0; mkdir /made; id -u"
    plan = bed.shell(
        script,
        root=mapped_root(bed, layers, flags),
        before_pivot=[("FILES_AS_ROOT",), ("MKDIR", "/kept", 0o700, FIRST, FIRST + 1)],
        after_pivot=INSIDE,
    )
    assert bed.run(made, plan).exit.code == 0
    assert bed.output().split() == ["0:0", "0:0", "1000:1000", "0:0", "0"]
    for name in ("of-0", "made", "kept"):
        status = (bed.scratch / "upper" / name).stat()
        assert (status.st_uid, status.st_gid) == (FIRST, FIRST + 1), name
    assert (Path(layers[0]) / "of-0").read_text() == "x"
    assert mounts_of(os.getpid()) == before


@pytest.mark.parametrize("flags", WAYS)
def test_the_hosts_mounts_are_as_before(bed: Bed, made: Fragment, layers: list[str], flags: int) -> None:
    """After the way by attached layers, too: the next source is the host's, unmapped."""
    plan = bed.shell(
        "stat -c %u /plain",
        root=mapped_root(bed, layers, flags),
        before_pivot=[("ATTACH", FIRST_SLOT, "/plain", 0, 0, raw.ATTACH_CREATE)],
        after_pivot=INSIDE,
    )
    plan.ops.insert(2, ("OPEN_TREE", FIRST_SLOT, layers[0], 0))
    assert bed.run(made, plan).exit.code == 0
    assert bed.output() == "65534\n"


def test_a_file_is_mapped_alone(bed: Bed, made: Fragment, layers: list[str]) -> None:
    plan = bed.shell(
        "stat -c %u /file; echo x > /file || echo refused",
        root=mapped_root(bed, layers, 0),
        gather=[("OVERLAY_MAPPED", FIRST_SLOT, [f"{layers[1]}/of-1000"], "", "", 0)],
        before_pivot=[("ATTACH", FIRST_SLOT, "/file", 0, 0, raw.ATTACH_CREATE)],
        after_pivot=INSIDE,
    )
    assert bed.run(made, plan).exit.code == 0
    assert bed.output() == "1000\nrefused\n"


def test_what_cannot_be_mapped(bed: Bed, made: Fragment) -> None:
    gather: list[Op] = [("OPEN_TREE", FIRST_SLOT, "/proc/sys", 0), ("MAP_IDS", FIRST_SLOT)]
    with pytest.raises(Refused) as refused:
        bed.run(made, bed.container(["/bin/true"], gather=gather))
    assert refused.value.error == errno.EINVAL
    assert "cannot map ids" in refused.value.message.text


def test_who_waits_is_closed_to_its_neighbours(bed: Bed, made: Fragment, layers: list[str]) -> None:
    """Held right before its execve it is inside already; a root there must not look into it."""
    held = bed.container(["/bin/true"], root=mapped_root(bed, layers, 0), after_pivot=INSIDE, clone_flags=0)
    held.flags |= raw.HOLD
    pid = start(made, "held", held)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Uid"].split() == [str(FIRST)] * 4
    for entry in ("root", "environ", "maps", "exe"):
        # setns into its user namespace gives all capabilities there, and no more.
        look = ["nsenter", "-U", "-t", str(pid), "--preserve-credentials", "cat", f"/proc/{pid}/{entry}"]
        said = subprocess.run(look, capture_output=True, text=True, check=False)
        assert said.returncode != 0 and "denied" in said.stderr, said


def test_sysctls_of_its_ipc_namespace(bed: Bed, made: Fragment) -> None:
    """Only their owner may write them (Linux 6.10): the fragment does so in its name, and is itself again."""
    for path, value in (("kernel/msgmax", "9000"), ("fs/mqueue/msg_max", "50"), ("net/core/somaxconn", "77")):
        made.client.adopt(Plan(ops=[("SYSCTL", path, value)]))
        assert bed.run(made, bed.shell(f"test $(cat /proc/sys/{path}) = {value}")).exit.code == 0
    with pytest.raises(Refused):
        made.client.adopt(Plan(ops=[("SYSCTL", "kernel/msgmax", "nonsense")]))
    status = dict(line.split(":", 1) for line in Path(f"/proc/{made.pid}/status").read_text().splitlines())
    assert status["Uid"].split() == status["Gid"].split() == ["0"] * 4
    assert status["CapEff"] == status["CapPrm"]
