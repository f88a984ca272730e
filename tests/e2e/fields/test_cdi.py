"""CDI devices, by field and by annotation: what they add to a container, and what is refused."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.daemon import Daemon
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Cri, Pod, linux, refusal

pytestmark = pytest.mark.root

KIND = "vendor.com/device"
PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
DATA = {"hostPath": "/etc", "containerPath": "/data", "options": ["ro", "rbind"]}


@pytest.fixture(scope="module")
def cdi_daemon(busybox_image: str) -> Iterator[Daemon]:
    folder = Path(tempfile.mkdtemp(prefix="pf-"))
    config = {
        "pools": [{"name": "default", "size": 2}],
        "cdi": {"spec_dirs": [str(folder / "static"), str(folder / "dynamic")]},
    }
    with Daemon(folder, config) as daemon:
        cri = Cri(daemon.endpoint)
        cri.pull(busybox_image)
        cri.close()
        yield daemon


@pytest.fixture
def pod(cdi_daemon: Daemon, busybox_image: str, tmp_path: Path) -> Iterator[Pod]:
    cri = Cri(cdi_daemon.endpoint, busybox_image)
    yield cri.pod(tmp_path).run_sandbox()
    cri.remove_pods()
    cri.close()


@pytest.fixture
def files(cdi_daemon: Daemon) -> Iterator[Path]:
    """The folder of CDI files, empty again afterwards."""
    folder = cdi_daemon.folder / "dynamic"
    folder.mkdir(exist_ok=True)
    yield folder
    for path in folder.iterdir():
        path.unlink()


def describe(files: Path, devices: dict[str, Any], **fields: Any) -> None:
    listed = [{"name": name, "containerEdits": edits} for name, edits in devices.items()]
    document = {"cdiVersion": "1.1.0", "kind": KIND, "devices": listed, **fields}
    (files / "new").write_text(json.dumps(document))
    (files / "new").rename(files / "vendor.json")


def asked(*names: str) -> list[pb.CDIDevice]:
    return [pb.CDIDevice(name=f"{KIND}={name}") for name in names]


def test_devices_that_nobody_describes(pod: Pod) -> None:
    code, text = refusal(lambda: pod.create("true", CDI_devices=asked("0", "1")))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert f"unresolvable CDI devices {KIND}=0, {KIND}=1" in text
    code, text = refusal(lambda: pod.create("true", annotations={"cdi.k8s.io/plugin_1": f"{KIND}=2"}))
    assert f"unresolvable CDI devices {KIND}=2" in text
    assert not pod.cri.containers()


@pytest.mark.parametrize("name", ["", "gpu0", f"{KIND}=", f"{KIND}=0,", "=,=", "\u202e", "a" * 10_000])
def test_names_that_are_none(pod: Pod, name: str) -> None:
    for fields in ({"CDI_devices": [pb.CDIDevice(name=name)]}, {"annotations": {"cdi.k8s.io/x": name}}):
        code, text = refusal(lambda fields=fields: pod.create("true", **fields))  # type: ignore[misc]
        assert (code, "not a qualified name" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True), text


def test_variables_nodes_mounts_and_groups(pod: Pod, files: Path, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "driver.so").write_text("driver")
    os.mknod(tmp_path / "node", stat.S_IFCHR | 0o600, os.makedev(10, 229))
    edits = {
        "env": ["VISIBLE=0", "SHARED=device"],
        "deviceNodes": [
            {"path": "/dev/vendor/0", "hostPath": str(tmp_path / "node"), "permissions": "rw"},
            {"path": "/dev/vendor/none", "type": "c", "major": 10, "minor": 229, "permissions": "none"},
            {"path": "/dev/vendor/pipe", "type": "p", "fileMode": 0o622},
        ],
        "mounts": [
            {
                "hostPath": str(tmp_path / "lib"),
                "containerPath": "/usr/lib/vendor",
                "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"],
            }
        ],
        "additionalGids": [4711],
    }
    describe(files, {"0": edits}, containerEdits={"env": ["ALL=yes"]})
    container = pod.start(
        "sleep 100",
        CDI_devices=asked("0"),
        envs=[pb.KeyValue(key="SHARED", value=b"request"), pb.KeyValue(key="OWN", value=b"1")],
        linux=linux(run_as_user=pb.Int64Value(value=33)),
    )
    assert container.tell("echo $VISIBLE $SHARED $OWN $ALL") == "0 device 1 yes", "an exec has them too"
    assert container.tell("stat -c '%a %u %F' /dev/vendor/0") == "600 33 character special file"
    assert container.tell("stat -c '%a %F' /dev/vendor/pipe") == "622 fifo"
    assert container.exec("exec 3<>/dev/vendor/0").exit_code == 0
    assert container.tell("cat /usr/lib/vendor/driver.so") == "driver"
    assert container.exec("touch /usr/lib/vendor/x").exit_code != 0
    options = container.tell("grep ' /usr/lib/vendor ' /proc/self/mountinfo").split()[5].split(",")
    assert {"ro", "nosuid", "nodev"} <= set(options)
    assert "4711" in container.tell("id -G").split()
    assert not container.status.mounts, "status tells what was asked for"


HOOK = """\
#!/bin/sh
set -e
state=$(cat)
bundle=$(pwd)
case "$state" in *'"status":"creating"'*'"bundle":"'$bundle'"'*) ;; *) echo "bad state: $state"; exit 1;; esac
grep -q '"root":{"path":"rootfs"}' config.json
echo "$0 $* $VENDOR" > rootfs/from-the-hook
ln -s from-the-hook rootfs/link
mkdir -p rootfs/mounted && mount -t tmpfs vendor rootfs/mounted && echo inside > rootfs/mounted/file
mount --bind "$HIDDEN" rootfs/data
test -d /proc/self && test -e rootfs/dev/null && test -e "$HIDDEN"
"""


@pytest.fixture
def hook(tmp_path: Path) -> dict[str, Any]:
    """One that does what vendors' hooks do: writes files and links, mounts, and looks at node and root."""
    (tmp_path / "hook").write_text(HOOK)
    (tmp_path / "hook").chmod(0o755)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "file").write_text("of the node")
    path = str(tmp_path / "hook")
    env = [PATH, "VENDOR=v", f"HIDDEN={tmp_path / 'hidden'}"]
    return {
        "hookName": "createContainer",
        "path": path,
        "args": ["hook", "a b", "c"],
        "env": env,
        "timeout": 30,
    }


def test_a_hook_works_on_the_containers_root(
    pod: Pod, files: Path, hook: dict[str, Any], tmp_path: Path, cdi_daemon: Daemon
) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    describe(files, {"0": {"hooks": [hook]}})
    (tmp_path / "volume").mkdir()
    mounts = [pb.Mount(container_path="/data", host_path=str(tmp_path / "volume"))]
    security = linux(masked_paths=["/mounted/masked", "/etc/passwd"], readonly_rootfs=True)
    container = pod.start("sleep 100", CDI_devices=asked("0"), mounts=mounts, linux=security)
    assert container.tell("cat /from-the-hook") == f"{hook['path']} a b c v"
    assert container.tell("readlink /link; cat /mounted/file; cat /data/file; cat /etc/passwd").split(
        "\n"
    ) == [
        "from-the-hook",
        "inside",
        "of the node",
    ]
    points = [line.split()[4] for line in container.tell("cat /proc/self/mountinfo").splitlines()]
    assert not [point for point in points if "rootfs" in point or "hidden" in point], (
        "nothing of the node stays"
    )
    assert Path("/proc/self/mountinfo").read_text() == before, "nothing is mounted on the node"
    assert not list((tmp_path / "volume").iterdir())
    container.stop()
    container.remove()
    again = pod.start("sleep 100")
    assert again.exec("test -e /from-the-hook").exit_code == 1


def test_hooks_run_in_order_and_in_shared_pids_too(pod: Pod, files: Path, hook: dict[str, Any]) -> None:
    def writes(text: str) -> dict[str, Any]:
        script = f"echo {text} >> rootfs/order"
        return {"hookName": "createContainer", "path": "/bin/sh", "args": ["sh", "-c", script]}

    describe(files, {"0": {"hooks": [writes("1"), writes("2")]}}, containerEdits={"hooks": [writes("0")]})
    for mode in (pb.CONTAINER, pb.POD):
        asks = linux(namespace_options=pb.NamespaceOption(pid=mode))
        assert pod.run("cat /order", CDI_devices=asked("0"), linux=asks).output.split() == ["0", "1", "2"]


@pytest.mark.kernel("user_namespaces")
def test_a_hook_in_a_user_namespace(cdi_daemon: Daemon, pod: Pod, files: Path, tmp_path: Path) -> None:
    """It is a program of the node all the same: it works as the node's root, on the pod's files."""
    script = "id -u > rootfs/who; chown 100000 rootfs/who; mount -t tmpfs -o uid=100000 vendor rootfs/opt"
    hook = {"hookName": "createContainer", "path": "/bin/sh", "args": ["sh", "-c", script], "env": [PATH]}
    node = {"path": "/dev/vendor", "hostPath": "/dev/fuse", "gid": 7}
    describe(files, {"0": {"hooks": [hook], "deviceNodes": [node], "mounts": [DATA], "env": ["A=b"]}})
    mapping = [pb.IDMapping(host_id=100_000, container_id=0, length=65_536)]
    users = pb.UserNamespace(mode=pb.POD, uids=mapping, gids=mapping)
    options = pb.NamespaceOption(pid=pb.CONTAINER, userns_options=users)
    context = pb.LinuxSandboxSecurityContext(namespace_options=options)
    own = pod.cri.pod(tmp_path, linux=pb.LinuxPodSandboxConfig(security_context=context)).run_sandbox()
    made = [pb.Mount(container_path="/opt", host_path=str(tmp_path / "opt"))]
    container = own.start(
        "sleep 100", CDI_devices=asked("0"), linux=linux(namespace_options=options), mounts=made
    )
    assert container.tell("cat /who; stat -c %u /who /opt; touch /opt/x; ls /data").split()[:3] == ["0"] * 3
    assert container.tell("test -c /dev/vendor && echo $A") == "b"
    assert container.tell("stat -c '%u %g' /dev/vendor") == "0 7"


@pytest.mark.parametrize(
    ("script", "timeout", "words"),
    [
        ("echo out; echo it is wrong >&2; exit 3", 10, "it is wrong"),
        ("kill -9 $$", 10, "hook /bin/sh"),
        ("sleep 60", 1, "ETIME"),
        ("head -c 100000 /dev/zero | tr '\\0' x; printf '\\033[31mthe end'; exit 1", 10, "?[31mthe end"),
    ],
)
def test_a_hook_that_fails_fails_the_start(
    pod: Pod, files: Path, script: str, timeout: int, words: str
) -> None:
    hook = {
        "hookName": "createContainer",
        "path": "/bin/sh",
        "args": ["sh", "-c", script],
        "timeout": timeout,
    }
    describe(files, {"0": {"hooks": [hook]}})
    container = pod.create("true", CDI_devices=asked("0"))
    _, text = refusal(container.start)
    assert "run hook /bin/sh" in text
    assert words in text
    assert container.status.reason == "StartError"


def test_a_hook_that_is_no_program(pod: Pod, files: Path) -> None:
    for path in ("/not/there", "/etc/passwd", "/etc"):
        describe(files, {"0": {"hooks": [{"hookName": "createContainer", "path": path}]}})
        code, text = refusal(lambda: pod.create("true", CDI_devices=asked("0")))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert f"hook createContainer {path}" in text


def test_a_node_that_may_not_be_opened(pod: Pod, files: Path) -> None:
    """What `none` says is the node's only: another way to the same device stays closed as well."""
    node = {"path": "/dev/closed", "type": "c", "major": 10, "minor": 229, "permissions": "none"}
    describe(files, {"0": {"deviceNodes": [node]}})
    container = pod.start("sleep 100", CDI_devices=asked("0"))
    assert b"not permitted" in container.exec("exec 3<>/dev/closed").stderr


def test_a_device_replaces_what_the_request_has_there(pod: Pod, files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the device")
    mount = {"hostPath": str(tmp_path / "file"), "containerPath": "/data"}
    node = {"path": "/dev/both", "hostPath": "/dev/zero"}
    describe(files, {"0": {"mounts": [mount], "deviceNodes": [node]}})
    container = pod.start(
        "sleep 100",
        CDI_devices=asked("0"),
        mounts=[pb.Mount(container_path="/data", host_path=str(tmp_path))],
        devices=[pb.Device(host_path="/dev/null", container_path="/dev/both", permissions="r")],
    )
    assert container.tell("cat /data") == "of the device"
    assert container.tell("head -c 1 /dev/both | wc -c") == "1"
    assert [mount.container_path for mount in container.status.mounts] == ["/data"]


def test_by_annotation_and_by_field_each_once(pod: Pod, files: Path) -> None:
    describe(files, {"0": {"env": ["FIRST=0"]}, "1": {"env": ["SECOND=1"]}})
    container = pod.start(
        "sleep 100",
        CDI_devices=asked("0"),
        annotations={"cdi.k8s.io/plugin_a": f"{KIND}=0,{KIND}=1", "other": "kept"},
    )
    assert container.tell("echo $FIRST $SECOND") == "0 1"
    assert dict(container.status.annotations)["other"] == "kept"


def test_files_are_read_anew_for_each_container(pod: Pod, files: Path, cdi_daemon: Daemon) -> None:
    for value in ("1", "2"):
        describe(files, {"0": {"env": [f"VALUE={value}"]}})
        assert pod.run("echo $VALUE", CDI_devices=asked("0")).output == value
    container = pod.create("echo $VALUE", CDI_devices=asked("0"))
    (files / "vendor.json").unlink()
    cdi_daemon.restart()
    pod.cri.wait_served()
    container.start()
    container.wait_exited()
    assert container.output == "2", "what it was created with stays"
    assert refusal(lambda: pod.create("true", CDI_devices=asked("0")))


def test_a_name_is_taken_once_whoever_waits_for_files(pod: Pod, files: Path) -> None:
    devices = {str(number): {"env": [f"A{number}=x"]} for number in range(3000)}
    describe(files, devices)
    config = pod.container_config("true", CDI_devices=asked("0"))
    request = pb.CreateContainerRequest(pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
    calls = [pod.cri.runtime.CreateContainer.future(request) for _ in range(8)]
    codes = sorted(call.code().name for call in calls)
    assert codes == ["ALREADY_EXISTS"] * 7 + ["OK"]
    assert len(pod.cri.containers()) == 1


def test_a_file_that_is_wrong_says_so(pod: Pod, files: Path) -> None:
    (files / "vendor.yaml").write_text("cdiVersion: 0.3.0\nkind: vendor.com/device\ndevices: 7\n")
    _, text = refusal(lambda: pod.create("true", CDI_devices=asked("0")))
    assert "vendor.yaml: Expected `array`" in text


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"intelRdt": {"closID": "gold"}}, "intelRdt"),
        ({"netDevices": [{"hostInterfaceName": "eth9", "name": "eth1"}]}, "netDevices"),
        ({"hooks": [{"hookName": "poststart", "path": "/bin/true"}]}, "hook poststart /bin/true"),
        ({"hooks": [{"hookName": "createRuntime", "path": "/bin/true"}]}, "hook createRuntime /bin/true"),
        ({"hooks": [{"hookName": "startContainer", "path": "/bin/true"}]}, "hook startContainer /bin/true"),
    ],
)
def test_what_is_not_done_is_refused(pod: Pod, files: Path, edits: dict[str, Any], words: str) -> None:
    describe(files, {"0": edits})
    code, text = refusal(lambda: pod.create("true", CDI_devices=asked("0")))
    assert (code, words in text) == (grpc.StatusCode.UNIMPLEMENTED, True), text
    assert not pod.cri.containers()


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"deviceNodes": [{"path": "/dev/not-here"}]}, "/dev/not-here"),
        ({"mounts": [{"hostPath": "/not/here", "containerPath": "/x"}]}, "/not/here"),
        ({"mounts": [{"hostPath": "/etc", "containerPath": "/proc/sys"}]}, "/proc/sys"),
        ({"mounts": [{"hostPath": "/etc", "containerPath": "/x/.."}]}, "container_path"),
    ],
)
def test_what_the_node_lacks_is_refused(pod: Pod, files: Path, edits: dict[str, Any], words: str) -> None:
    describe(files, {"0": edits})
    code, text = refusal(lambda: pod.create("true", CDI_devices=asked("0")))
    assert code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)
    assert words in text
    assert not pod.cri.containers()
