"""Our numbers against native/protocol.h and native/ops.def, the texts that the C side is built from."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from phantom_cri.errors import Internal
from phantom_cri.launch import bits, message, ops, plan

NATIVE = Path(message.__file__).parents[1] / "native"
HEADER = (NATIVE / "protocol.h").read_text()


def defined(name: str) -> int:
    found = re.search(rf"\bPH_{name}\b\s*=?\s*(0x[0-9a-f]+|\d+)", HEADER, re.IGNORECASE)
    assert found, f"PH_{name} is not in protocol.h"
    return int(found[1], 0)


NUMBERS = """
    VERSION ID_MAX TEXT_MAX DONATED_MAX SLOTS PLAN_MAGIC PLAN_LOG PLAN_STDIN PLAN_TTY PLAN_KILL_REST
    FLAG_CLAIM FLAG_ALL KIND_CONTAINER KIND_EXEC OPEN_RECURSIVE OPEN_NOFOLLOW OPEN_OPTIONAL OPEN_CREATE
    ATTACH_RECURSIVE ATTACH_CREATE OVERLAY_VOLATILE
"""


@pytest.mark.parametrize("name", NUMBERS.split())
def test_numbers(name: str) -> None:
    assert getattr(bits, name) == defined(name)


def test_message_types_phases_and_states() -> None:
    assert {kind.name: kind.value for kind in message.Type} == {
        kind.name: defined(kind.name) for kind in message.Type
    }
    assert {phase.value for phase in message.Phase} == {defined(phase.name) for phase in message.Phase}
    words = ("STARTING", "RUNNING", "EXITED_STATE")
    assert [state.value for state in message.State] == [defined(word) for word in words]


def test_layouts_are_those_of_a_c_compiler(tmp_path: Path) -> None:
    source = tmp_path / "sizes.c"
    source.write_text(
        '#include <stdio.h>\n#include <stddef.h>\n#include "protocol.h"\n'
        'int main(void) { printf("%zu %zu %zu %zu", sizeof(struct ph_message), sizeof(struct ph_plan),'
        " offsetof(struct ph_message, exit), offsetof(struct ph_plan, clone_flags)); }\n"
    )
    program = tmp_path / "sizes"
    subprocess.run(["gcc", "-I", str(NATIVE), "-o", str(program), str(source)], check=True)
    said = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    assert said == f"{message.LAYOUT.size} {plan._HEADER.size} 112 24"


def test_the_op_table_is_complete() -> None:
    table = ops.read_table()
    assert len(table) == len(re.findall(r"^OP\(", (NATIVE / "ops.def").read_text(), re.MULTILINE))
    assert table.keys() == ops.OPS.keys()
    assert table[21] == ("ATTACH", "usuuu", ("slot", "target", "attributes", "propagation", "flags"))


def test_a_differing_class_stops_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.Mask, "signature", "u")
    with pytest.raises(Internal, match=r"op 25: ops.def says \('MASK', 's', \('path',\)\)"):
        ops.check_table()
