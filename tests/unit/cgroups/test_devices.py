"""The device program is run by an interpreter of our own, and must agree with the rules read literally."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantom_cri.cgroups import DEFAULT_RULES, DeviceRule
from phantom_cri.cgroups.devices import v1_lines, v2_program
from phantom_cri.errors import InvalidArgument

KINDS = {"b": 1, "c": 2}
ACCESS = {"m": 1, "r": 2, "w": 4}


def run(program: bytes, kind: str, major: int, minor: int, access: str) -> int:
    """Interpret the instructions used, by the BPF instruction set's own definition of each."""
    mask = 0xFFFFFFFF
    context = struct.pack("=III", sum(ACCESS[a] for a in access) << 16 | KINDS[kind], major, minor)
    registers = dict.fromkeys(range(11), 0)
    at = 0
    for _ in range(10_000):
        opcode, pair, offset, immediate = struct.unpack_from("<BBhi", program, at * 8)
        target, source = pair & 15, pair >> 4
        at += 1
        value = registers[target]
        if opcode == 0x61:
            assert source == 1
            (registers[target],) = struct.unpack_from("=I", context, offset)
        elif opcode == 0xBC:
            registers[target] = registers[source] & mask
        elif opcode == 0x54:
            registers[target] = value & immediate & mask
        elif opcode == 0x74:
            registers[target] = (value & mask) >> immediate
        elif opcode == 0x56:
            at += offset if value & mask != immediate & mask else 0
        elif opcode == 0x46:
            at += offset if value & immediate & mask else 0
        elif opcode == 0xB7:
            registers[target] = immediate
        elif opcode == 0x95:
            return registers[0]
        else:
            raise AssertionError(f"opcode {opcode:#x}")
    raise AssertionError("no end")


def allowed(rules: list[DeviceRule], kind: str, major: int, minor: int, access: str) -> bool:
    return any(
        rule.kind in ("a", kind)
        and rule.major in (None, major)
        and rule.minor in (None, minor)
        and set(access) <= set(rule.access)
        for rule in rules
    )


numbers = st.sampled_from([0, 1, 3, 136, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
accesses = st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"])
rules = st.builds(
    DeviceRule, st.sampled_from(["a", "b", "c"]), st.none() | numbers, st.none() | numbers, accesses
)


@given(st.lists(rules, max_size=6), st.sampled_from("bc"), numbers, numbers, accesses)
def test_program_says_what_the_rules_say(
    listed: list[DeviceRule], kind: str, major: int, minor: int, access: str
) -> None:
    assert run(v2_program(listed), kind, major, minor, access) == allowed(listed, kind, major, minor, access)


@pytest.mark.parametrize(
    "kind, major, minor, access, answer",
    [
        ("c", 1, 3, "rw", 1),  # null
        ("c", 136, 7, "rw", 1),  # pts/7
        ("c", 1, 11, "m", 1),  # mknod of kmsg …
        ("c", 1, 11, "r", 0),  # … but no reading
        ("b", 8, 0, "r", 0),  # sda
        ("b", 8, 0, "m", 1),
        ("b", 1, 3, "r", 0),  # the kind counts
    ],
)
def test_default_rules(kind: str, major: int, minor: int, access: str, answer: int) -> None:
    assert run(v2_program(DEFAULT_RULES), kind, major, minor, access) == answer


EXIT = b"\x95" + bytes(7)


def test_nothing_follows_a_rule_for_everything() -> None:
    """The kernel refuses a program with instructions that nothing reaches; privileged containers have it."""
    detailed = DeviceRule("a", None, None, "rwm")
    alone = v2_program([detailed])
    assert v2_program([detailed, DeviceRule("c", 1, 3, "r")]) == alone
    assert alone.endswith(EXIT) and alone.count(EXIT) == 1
    assert run(alone, "b", 8, 0, "rwm") == 1


def test_v1_lines() -> None:
    assert v1_lines((DeviceRule("c", 1, None, "rw"),)) == (b"c 1:* rw",)
    # The kernel takes "a 1:3 r" for "everything".
    assert v1_lines((DeviceRule("a", 1, 3, "r"),)) == (b"b 1:3 r", b"c 1:3 r")


@pytest.mark.parametrize(
    "rule",
    [DeviceRule("c", 1, 3, ""), DeviceRule("c", 1, 3, "rx"), DeviceRule("c", -1, 3, "r"), ("p", 1, 3, "r")],
)
def test_wrong_rules(rule: DeviceRule) -> None:
    with pytest.raises(InvalidArgument, match="device"):
        v2_program([DeviceRule(*rule)])
    with pytest.raises(InvalidArgument, match="device"):
        v1_lines((DeviceRule(*rule),))
