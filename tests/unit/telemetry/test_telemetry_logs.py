from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from phantom_cri.telemetry.logs import about, configure

log = logging.getLogger("phantom_cri.test")


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def in_a_task(stream: io.StringIO, *lines: str) -> str:
    """What a task that is about a pod logs; the ids end with the task."""

    async def work() -> None:
        about(method="RunPodSandbox", sandbox_id="s1")
        for line in lines:
            log.info(line)

    asyncio.run(work())
    return stream.getvalue()


def test_json_lines_carry_the_tasks_ids() -> None:
    configure("info", "json", stream := io.StringIO())
    line = json.loads(in_a_task(stream, "ready"))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "phantom_cri.test",
        "message": "ready",
        "method": "RunPodSandbox",
        "sandbox_id": "s1",
    }


def test_text_lines_carry_the_tasks_ids() -> None:
    configure("info", "text", stream := io.StringIO())
    line = in_a_task(stream, "ready")
    assert line.endswith(" info phantom_cri.test: ready method=RunPodSandbox sandbox_id=s1\n")


def test_extra_wins_over_the_task() -> None:
    configure("info", "json", stream := io.StringIO())
    log.info("x", extra={"container_id": "c1"})
    assert json.loads(stream.getvalue())["container_id"] == "c1"


def test_ids_end_with_their_task() -> None:
    configure("info", "json", stream := io.StringIO())
    in_a_task(stream, "one")
    log.info("two")
    assert "sandbox_id" not in json.loads(stream.getvalue().splitlines()[1])


def test_a_child_task_inherits_and_does_not_leak() -> None:
    configure("info", "json", stream := io.StringIO())

    async def child() -> None:
        about(container_id="c1")
        log.info("child")

    async def parent() -> None:
        about(sandbox_id="s1")
        await asyncio.create_task(child())
        log.info("parent")

    asyncio.run(parent())
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["sandbox_id"], first["container_id"]) == ("s1", "c1")
    assert second["sandbox_id"] == "s1" and "container_id" not in second


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_a_caller_wrote_stays_on_its_line(style: str) -> None:
    configure("info", style, stream := io.StringIO())  # type: ignore[arg-type]
    log.info("image %s", "a\n2026-01-01T00:00:00Z error forged: \udcff\r")
    assert stream.getvalue().count("\n") == 1
    assert "\\udcff" in stream.getvalue()


def test_a_traceback_is_one_field_of_json() -> None:
    configure("info", "json", stream := io.StringIO())
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    assert json.loads(stream.getvalue())["traceback"].endswith("ValueError: why")


def test_the_level_holds_and_a_second_configure_replaces_the_first() -> None:
    configure("debug", "text", first := io.StringIO())
    configure("warning", "text", second := io.StringIO())
    log.info("quiet")
    log.warning("loud")
    assert first.getvalue() == ""
    assert "quiet" not in second.getvalue() and second.getvalue().count("loud") == 1


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="NONSENSE"):
        configure("nonsense")
