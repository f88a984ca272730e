"""The pages: their links lead somewhere, and the messages that they explain are the code's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
TROUBLE = ROOT / "docs/troubleshooting.md"

VARIABLE = "…"
"""What a page writes for the part of a message that differs."""


@cache
def literals() -> str:
    """All literal text in the program's strings, one string a line; what is put in shows as VARIABLE."""
    found = []
    for file in (ROOT / "phantom_cri").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else VARIABLE for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub("%[sd]", VARIABLE, node.value))
    return "\n".join(found)


def messages() -> list[str]:
    """The first cell of each row, where that is code and no metric."""
    cells = re.findall(r"^\| (?:[^`|]*reason `Unknown`: )?`([^|]+?)`", TROUBLE.read_text(), re.MULTILINE)
    return [cell for cell in cells if not cell.startswith("phantom_")]


@pytest.mark.parametrize("message", messages())
def test_a_message_that_is_explained_is_one_of_the_codes(message: str) -> None:
    """Messages are put together at `: `, so each part is looked for by itself."""
    parts = [part for part in re.split(r"…|: ", message) if len(part.strip()) > 3]
    assert parts or message in ('exec: "…": …', "op …, …: …")
    assert [part for part in parts if part.strip() not in literals()] == []


def test_enough_messages_are_explained() -> None:
    assert len(messages()) > 50


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" not in link:
                yield page, link


@pytest.mark.parametrize(
    ("page", "link"), [pytest.param(*found, id=f"{found[0].name}:{found[1]}") for found in links()]
)
def test_a_link_leads_somewhere(page: Path, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (page.parent / path) if path else page
    assert target.exists()
    assert not anchor or anchor in headings(target)
