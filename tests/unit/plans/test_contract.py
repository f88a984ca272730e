"""Our numbers against native/protocol.h and native/ops.def, the texts that the C side is built from."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from phantom_cri.errors import Internal
from phantom_cri.fragments import features, message
from phantom_cri.plans import constants, ops, plan
from phantom_cri.plans.op_table import read_table

NATIVE = Path(message.__file__).parents[1] / "native"


def evaluated(expressions: list[str], folder: Path) -> list[int]:
    """What a C compiler makes of expressions over the header."""
    source = folder / "numbers.c"
    prints = "".join(f'printf("%lld ", (long long)({expression}));' for expression in expressions)
    source.write_text(
        '#include <stdio.h>\n#include <stddef.h>\n#include "protocol.h"\n'
        f"int main(void) {{ {prints} return 0; }}\n"
    )
    program = folder / "numbers"
    subprocess.run(["gcc", "-I", str(NATIVE), "-o", str(program), str(source)], check=True)
    said = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return [int(number) for number in said.split()]


NUMBERS = """
    VERSION_OLDEST VERSION_NEWEST PACKET_MAX ID_MAX ID_SIZE MESSAGE_MIN DONATED_MAX SLOTS
    PLAN_MAGIC PLAN_LOG PLAN_STDIN PLAN_TTY PLAN_KILL_REST PLAN_HOLD PLAN_KEEP PLAN_UNREAD PLAN_FLAGS
    KIND_ADOPT KIND_CONTAINER KIND_EXEC
"""
OP_FLAGS = """
    OPEN_RECURSIVE OPEN_CREATE ATTACH_RECURSIVE ATTACH_CREATE REMOUNT_RECURSIVE ATTRIBUTES_RECURSIVE
    OVERLAY_VOLATILE OVERLAY_JOINED OVERLAY_CLASSIC
"""


def test_numbers(tmp_path: Path) -> None:
    names = NUMBERS.split()
    assert [getattr(constants, name) for name in names] == evaluated(
        [f"PH_{name}" for name in names], tmp_path
    )


def test_flags_of_ops(tmp_path: Path) -> None:
    names = OP_FLAGS.split()
    assert [getattr(constants, name) for name in names] == evaluated(
        [f"PH_OP_{name}" for name in names], tmp_path
    )


def test_flags_of_requests(tmp_path: Path) -> None:
    kinds = {"ADOPT": message.AdoptFlag, "SIGNAL": message.SignalFlag, "ATTACH": message.AttachFlag}
    ours = {f"PH_{kind}_{flag.name}": flag.value for kind, flags in kinds.items() for flag in flags}
    assert list(ours.values()) == evaluated(list(ours), tmp_path)


def test_features(tmp_path: Path) -> None:
    ours = {f"PH_FEATURE_{kind.name}": kind.value for kind in features.Kind}
    sizes = {"sizeof(struct ph_hello)": features._HELLO.size}
    sizes["sizeof(struct ph_feature)"] = features._FEATURE.size
    assert [*ours.values(), *sizes.values()] == evaluated([*ours, *sizes], tmp_path)


def test_message_types_phases_and_states(tmp_path: Path) -> None:
    ours: dict[str, int] = {kind.name: kind.value for kind in message.Type}
    ours |= {phase.name: phase.value for phase in message.Phase}
    ours |= {{"EXITED": "EXITED_STATE"}.get(state.name, state.name): state.value for state in message.State}
    assert list(ours.values()) == evaluated([f"PH_{name}" for name in ours], tmp_path)


def test_layouts(tmp_path: Path) -> None:
    sizes = ["sizeof(struct ph_message)", "sizeof(struct ph_plan)"]
    offsets = ["offsetof(struct ph_message, exit)", "offsetof(struct ph_plan, clone_flags)"]
    assert evaluated(sizes + offsets, tmp_path) == [message.LAYOUT.size, plan._HEADER.size, 216, 32]


def test_the_op_table_is_complete() -> None:
    table = read_table()
    assert len(table) == len(re.findall(r"^OP\(", (NATIVE / "ops.def").read_text(), re.MULTILINE))
    assert table.keys() == ops.OPS.keys()
    assert table[21] == (
        "ATTACH",
        "usuuu",
        ("slot", "target", "attributes", "propagation", "flags"),
        ("PH_OP_ATTACH_RECURSIVE", "PH_OP_ATTACH_CREATE"),
    )
    assert ops.OPS[21].known_flags == constants.ATTACH_RECURSIVE | constants.ATTACH_CREATE
    assert ops.OPS[25].known_flags == 0


def test_a_differing_class_stops_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.Mask, "signature", "u")
    with pytest.raises(Internal, match=r"op 25: ops.def says Row\(name='MASK', signature='s',"):
        ops.check_table()
