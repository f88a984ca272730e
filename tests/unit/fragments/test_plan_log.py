"""Plans in the log: not above debug, whole at debug, and never a variable's value."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest

from phantom_cri.fragments.plan_log import log_plan
from phantom_cri.plans import KIND_CONTAINER, KIND_EXEC
from phantom_cri.plans.ops import Exec, Hostname, Mask
from phantom_cri.plans.plan import Plan
from phantom_cri.telemetry import logs

CONTAINER = Plan((Mask("/a\nb"), Exec("tool", ("tool",), ("TOKEN=secret",))), KIND_CONTAINER)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def logged(plan: Plan, process_id: str, level: str = "debug", style: Literal["text", "json"] = "text") -> str:
    stream = io.StringIO()
    logs.configure(level, style, stream)
    log_plan(plan, process_id, "pod1")
    return stream.getvalue()


def test_nothing_is_made_or_written_above_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(plan: Plan) -> list[str]:
        raise AssertionError("words for nobody")

    monkeypatch.setattr(Plan, "numbered", made)
    assert logged(CONTAINER, "c1", "info") == ""


def test_a_plan_is_one_record_with_a_line_an_op() -> None:
    head, *lines = logged(CONTAINER, "c1").splitlines()
    assert head.endswith("debug phantom_cri.fragments.plan_log: plan for process c1: 2 ops "
                         "sandbox_id=pod1 container_id=c1")  # fmt: skip
    assert lines == [r"      0 mask /a\nb", "      1 exec tool"]


def test_as_json_the_lines_are_a_list() -> None:
    record = json.loads(logged(CONTAINER, "c1", style="json"))
    assert record["lines"] == ["  0 mask /a\nb", "  1 exec tool"]
    assert (record["sandbox_id"], record["container_id"]) == ("pod1", "c1")


@pytest.mark.parametrize(("plan", "process_id", "subject"), [
    (Plan((Hostname("x"),)), "", "the fragment itself"),
    (Plan((Exec("sh", ("sh",)),), KIND_EXEC), "exec-1", "process exec-1"),
])  # fmt: skip
def test_what_is_no_container_has_no_container_id(plan: Plan, process_id: str, subject: str) -> None:
    record = json.loads(logged(plan, process_id, style="json"))
    assert record["message"] == f"plan for {subject}: 1 ops"
    assert "container_id" not in record


@pytest.mark.parametrize("style", ["text", "json"])
def test_values_of_variables_are_not_logged(style: Literal["text", "json"]) -> None:
    assert "secret" not in logged(CONTAINER, "c1", style=style)
