from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phantom_cri.errors import FailedPrecondition, InvalidArgument, PhantomError
from phantom_cri.model import ContainerSecurity, SandboxSecurity, SelinuxLabels, SelinuxOptions
from phantom_cri.policy.selinux import Contexts, Selinux, enabled, parse_context, read_contexts

LXC = """
# of some policy
process = "system_u:system_r:container_t:s0"
content = "system_u:object_r:virt_var_lib_t:s0"
file = "system_u:object_r:container_file_t:s0"
ro_file="system_u:object_r:container_ro_file_t:s0" # read-only
"""
CONTEXTS = Contexts(
    parse_context("system_u:system_r:container_t:s0"),
    parse_context("system_u:object_r:container_file_t:s0"),
    parse_context("system_u:object_r:container_ro_file_t:s0"),
)


def small_policy(text: str) -> str:
    """What a kernel with a policy of two users and some types makes of a context."""
    found = re.fullmatch(r"(\w+):(\w+):(\w+):s0(?::c(\d+),c(\d+))?", text)
    if not found:
        return ""
    user, role, kind, *categories = found.groups()
    numbers = sorted(int(number) for number in categories if number)
    known = user in ("system_u", "other_u") and kind in ("container_t", "spc_t", "web_t", "container_file_t")
    allowed = role == "object_r" or (role == "system_r" and kind != "container_file_t")
    if not known or not allowed or any(number > 1023 for number in numbers):
        return ""
    return f"{user}:{role}:{kind}:s0" + (f":c{numbers[0]},c{numbers[1]}" if numbers else "")


@pytest.fixture
def selinux() -> Selinux:
    return Selinux(CONTEXTS, canonical=small_policy)


def pod_of(selinux: Selinux, sandbox_id: str = "1", **asked: Any) -> SelinuxLabels:
    labels = selinux.of_pod(sandbox_id, SandboxSecurity(selinux=SelinuxOptions(**asked)))
    assert labels is not None
    return labels


# --- where nobody gets labels ------------------------------------------------


ASKED = [{"level": "s0:c1"}, {"type": "container_t"}, {"user": "u"}, {"role": "r"}]


@pytest.mark.parametrize("options", ASKED)
def test_without_selinux_labels_are_ignored_and_logged_once(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    selinux, asked = Selinux(), SelinuxOptions(**options)
    for _ in range(2):
        selinux.check_pod(SandboxSecurity(selinux=asked))
        assert selinux.of_pod("1", SandboxSecurity(selinux=asked)) is None
        assert selinux.of_container(None, ContainerSecurity(selinux=asked)) is None
    assert caplog.text.count("selinux_options are ignored") == 1
    assert "SELinux is not enabled on this host" in caplog.text


@pytest.mark.parametrize("options", ASKED)
def test_labels_that_a_host_with_selinux_cannot_give_are_refused(options: dict[str, Any]) -> None:
    asked = SelinuxOptions(**options)
    selinux = Selinux(None, "no contexts for containers")
    calls: list[Callable[[], object]] = [
        lambda: selinux.check_pod(SandboxSecurity(selinux=asked)),
        lambda: selinux.of_container(None, ContainerSecurity(selinux=asked)),
    ]
    for call in calls:
        with pytest.raises(FailedPrecondition, match=r"selinux_options: .*no contexts for containers"):
            call()


@pytest.mark.parametrize(
    "security",
    [
        ContainerSecurity(),
        ContainerSecurity(selinux=SelinuxOptions()),
        ContainerSecurity(selinux=SelinuxOptions(level="s0"), privileged=True),
        ContainerSecurity(selinux=SelinuxOptions(level="s0", type="spc_t")),
    ],
)
@pytest.mark.parametrize("selinux", [Selinux(), Selinux(None, "no contexts for containers")])
def test_labels_that_hold_nobody_are_fine_there(
    selinux: Selinux, security: ContainerSecurity, caplog: pytest.LogCaptureFixture
) -> None:
    assert selinux.of_container(None, security) is None
    assert selinux.of_pod("1", SandboxSecurity()) is None
    if security.selinux in (None, SelinuxOptions()):
        assert not caplog.text


def test_a_pod_from_before_has_no_labels_to_share(selinux: Selinux) -> None:
    assert selinux.of_container(None, ContainerSecurity()) is None
    with pytest.raises(FailedPrecondition, match="created without labels"):
        selinux.of_container(None, ContainerSecurity(selinux=SelinuxOptions(level="s0:c1,c2")))


# --- what is refused ---------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "nobody_u"),
        ("user", "system_u:object_r"),
        ("role", "no_r"),
        ("role", ""),
        ("type", "nope_t"),
        ("type", 'x",upperdir="/'),
        ("type", "container_t\n"),
        ("level", "s0,c0,c5"),
        ("level", "s0:c1,c5000"),
        ("level", "s0 "),
        ("level", "s0\0"),
    ],
)
def test_a_part_that_the_policy_lacks(selinux: Selinux, field: str, value: str) -> None:
    wished: dict[str, Any] = {field: value} if value else {"role": "x y"}
    asked = SelinuxOptions(**wished)
    words = re.escape(f"selinux_options.{field}: ")
    calls: list[Callable[[], object]] = [
        lambda: selinux.check_pod(SandboxSecurity(selinux=asked)),
        lambda: selinux.of_pod("1", SandboxSecurity(selinux=asked)),
        lambda: selinux.of_container(pod_of(selinux, "2"), ContainerSecurity(selinux=asked)),
        lambda: selinux.of_container(pod_of(selinux, "2"), ContainerSecurity(selinux=asked, privileged=True)),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument, match=words):
            call()


def test_parts_that_do_not_go_together(selinux: Selinux) -> None:
    with pytest.raises(InvalidArgument, match="does not allow 'system_u:system_r:container_file_t:s0"):
        pod_of(selinux, type="container_file_t")


@pytest.mark.parametrize("text", ["", "a", "a:b", "a::c", ":b:c", "a:b:c:"])
def test_no_context(text: str) -> None:
    with pytest.raises(ValueError, match="is not user:role:type"):
        parse_context(text)


# --- who gets which ------------------------------------------------------------


def test_pods_differ_and_their_containers_share(selinux: Selinux) -> None:
    pods = [pod_of(selinux, str(number)) for number in range(1000)]
    assert len({pod.process for pod in pods}) == len({pod.mount for pod in pods}) == 1000
    for pod in pods[:3]:
        process, mount = parse_context(pod.process), parse_context(pod.mount)
        assert process == CONTEXTS.process._replace(level=process.level)
        assert mount == CONTEXTS.file._replace(level=process.level)
        assert re.fullmatch(r"s0:c\d+,c\d+", process.level)
        assert selinux.of_container(pod, ContainerSecurity()) == pod


def test_asked_parts_take_the_place_of_the_pods_own(selinux: Selinux) -> None:
    pod = pod_of(selinux, level="s0:c9,c3", user="other_u")
    assert pod == SelinuxLabels(
        "other_u:system_r:container_t:s0:c3,c9", "other_u:object_r:container_file_t:s0:c3,c9"
    )
    one = selinux.of_container(pod, ContainerSecurity(selinux=SelinuxOptions(type="web_t")))
    assert one == SelinuxLabels("other_u:system_r:web_t:s0:c3,c9", pod.mount)
    two = selinux.of_container(pod, ContainerSecurity(selinux=SelinuxOptions(level="s0:c1,c2")))
    assert two is not None
    assert (parse_context(two.process).level, parse_context(two.mount).level) == ("s0:c1,c2", "s0:c1,c2")


def test_a_privileged_one_has_files_but_no_confinement(selinux: Selinux) -> None:
    pod = pod_of(selinux)
    assert selinux.of_container(pod, ContainerSecurity(privileged=True)) == SelinuxLabels("", pod.mount)


def test_a_level_is_free_when_its_last_pod_is_gone(selinux: Selinux, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([5, 5, 7, 5, 5, 7, 1, 2, 7, 5])
    monkeypatch.setattr("phantom_cri.policy.selinux.secrets.randbelow", lambda _: next(draws))
    first = pod_of(selinux, "1")
    assert first.process.endswith(":s0:c5,c7")  # no pair is one twice
    pod_of(selinux, "2", level="s0:c7,c5")  # who asks, shares
    assert pod_of(selinux, "3").process.endswith(":s0:c1,c2")
    selinux.release("1", first)
    selinux.release("1", first)
    assert first.process in _held(selinux)
    selinux.release("2", first)
    selinux.release("4", None)
    assert pod_of(selinux, "5") == first


def _held(selinux: Selinux) -> set[str]:
    return {str(CONTEXTS.process._replace(level=level)) for level in selinux.held_levels}


def test_a_refused_pod_holds_nothing(selinux: Selinux) -> None:
    with pytest.raises(PhantomError):
        pod_of(selinux, level="s0:c1,c2", type="nope_t")
    assert not selinux.held_levels


def test_a_policy_without_levels() -> None:
    contexts = Contexts(*(context._replace(level="") for context in CONTEXTS))
    labels = pod_of(Selinux(contexts, canonical=str))
    assert labels == SelinuxLabels("system_u:system_r:container_t", "system_u:object_r:container_file_t")


# --- the host --------------------------------------------------------------------


def test_contexts_of_the_policy_in_use(tmp_path: Path) -> None:
    libraries, policies = tmp_path / "contexts", tmp_path / "selinux"
    assert read_contexts(libraries, policies) is None
    (policies / "mine/contexts").mkdir(parents=True)
    (policies / "config").write_text("# comment\nSELINUX=enforcing\nSELINUXTYPE=mine # so\n")
    (policies / "mine/contexts/lxc_contexts").write_text(LXC)
    assert read_contexts(libraries, policies) == CONTEXTS
    libraries.write_text('process = "a_u:a_r:a_t"\n')
    assert read_contexts(libraries, policies) == CONTEXTS
    libraries.write_text('process = "a_u:a_r:a_t"\nfile = "a_u:object_r:f_t"\n')
    found = read_contexts(libraries, policies)
    assert found is not None
    assert (str(found.process), found.ro_file) == ("a_u:a_r:a_t", found.file)
    libraries.write_text('process = "nonsense"\nfile = "a_u:object_r:f_t"\n')
    with pytest.raises(ValueError, match="nonsense"):
        read_contexts(libraries, policies)


def test_not_enabled(tmp_path: Path) -> None:
    check, own = tmp_path / "context", tmp_path / "current"
    own.write_text("kernel\0")
    assert not enabled(check, own)
    check.touch()
    assert not enabled(check, own)  # no policy yet
