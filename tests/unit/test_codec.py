"""Records of other releases: what is not known stays, what would be misread is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phantom_cri.codec import DecodeError, NewerSchema, Stored, from_stored, replace, to_json


class Part(Stored, frozen=True):
    size: int
    name: str = ""


class Whole(Stored, frozen=True):
    id: str
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    labels: dict[str, str] = {}


class Second(Stored, frozen=True, tag_field="schema", tag=2):
    id: str = ""


LATER: dict[str, Any] = {
    "id": "w",
    "part": {"size": 1, "colour": [{"deep": None}]},
    "parts": [{"size": 2}, {"size": 3, "shape": 1e300}],
    "added": {"large": 2**70},
}


def read(document: object) -> Whole:
    return from_stored(json.dumps(document).encode(), Whole)


def written(value: Stored) -> Any:
    return json.loads(to_json(value))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"id":1}', b"{}", b'{"id":"w","schema":"x"}'])
def test_what_is_damaged_is_refused(text: bytes) -> None:
    with pytest.raises(DecodeError):
        from_stored(text, Whole)


@pytest.mark.parametrize("kind", [Whole, Second])
def test_a_newer_schema_is_told_before_anything_is_decoded(kind: type[Stored]) -> None:
    with pytest.raises(NewerSchema, match="it has schema 7 of a newer phantom-cri, this one knows"):
        from_stored(b'{"schema":7,"id":["of", "another", "kind"]}', kind)


def test_unknown_fields_are_written_back_where_they_were() -> None:
    assert written(read(LATER)) == LATER


def test_also_within_what_is_not_stored_itself() -> None:
    """As `crictl inspect` shows parts of a record."""
    part = read(LATER).part
    assert json.loads(to_json({"a": part, "b": [part], "c": (1, part), "d": None, "\x7f": {}})) == {
        "a": LATER["part"],
        "b": [LATER["part"]],
        "c": [1, LATER["part"]],
        "d": None,
        "\x7f": {},
    }


def test_a_change_keeps_unknown_fields() -> None:
    changed = replace(read(LATER), id="x")
    assert written(changed) == LATER | {"id": "x"}
    assert from_stored(to_json(changed), Whole) == changed


def test_a_part_that_goes_takes_its_unknown_fields_along() -> None:
    value = replace(read(LATER), part=Part(9), parts=())
    assert written(value) == {"id": "w", "part": {"size": 9}, "added": LATER["added"]}


def test_a_changed_part_keeps_its_own() -> None:
    value = read(LATER)
    assert value.part is not None
    value = replace(value, part=replace(value.part, size=5), parts=value.parts[1:])
    assert written(value) == LATER | {"part": LATER["part"] | {"size": 5}, "parts": LATER["parts"][1:]}


def test_a_field_that_became_known_is_no_longer_unknown() -> None:
    class Earlier(Stored, frozen=True):
        id: str

    text = to_json(from_stored(to_json(Whole("w", part=Part(1))), Earlier))
    assert from_stored(text, Whole) == Whole("w", part=Part(1))


@pytest.mark.parametrize("key", ["\x7funknown", "unknown", "\x7f"])
def test_labels_may_have_any_name(key: str) -> None:
    for value in (Whole("w", labels={key: "x"}), replace(read(LATER), labels={key: "x"})):
        assert from_stored(to_json(value), Whole) == value
        assert written(value)["labels"] == {key: "x"}


def test_nobody_can_write_the_place_of_the_unknown_ones() -> None:
    assert written(read({"id": "w", "\x7funknown": "eyJpZCI6ICJ4In0="})) == {"id": "w"}
    with pytest.raises(DecodeError):
        read({"id": "w", "\x7funknown": "aGVsbG8="})


def test_values_without_unknown_fields_are_as_before() -> None:
    assert to_json(Whole("w", part=Part(1))) == b'{"id":"w","part":{"size":1}}'
    assert read({"id": "w"}) == Whole("w")


def test_a_raised_schema_is_written_and_the_first_is_left_out() -> None:
    assert written(Second("s")) == {"id": "s", "schema": 2}
    assert from_stored(to_json(Second("s")), Second) == Second("s")
    assert from_stored(b'{"id":"s"}', Second) == Second("s")
    assert written(from_stored(b'{"schema":2,"more":1}', Second)) == {"schema": 2, "more": 1}
    with pytest.raises(NewerSchema, match=r"schema 2 .* this one knows 1"):
        from_stored(to_json(Second("s")), Whole)
