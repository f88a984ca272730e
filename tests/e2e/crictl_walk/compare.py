"""What two runtimes printed for one step, made comparable and compared."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from tests.e2e.crictl_walk.walker import Output

Side = Literal["theirs", "ours"]


@dataclass(frozen=True)
class Rule:
    """Values at the paths that `path` matches (as `status.pid`, list items as `[]`) are not compared.

    Their types are, and that they are there; with `optional` they may be missing on either side.
    """

    path: str
    why: str
    optional: bool = False


@dataclass(frozen=True)
class Reader:
    """Turns an output of one runtime into what can be compared, by what that runtime's ids are called."""

    known: Mapping[str, str]
    blanks: Sequence[tuple[str, str, str]]

    def text(self, text: str) -> str:
        """`text` with names for ids and places, and blanks for what no two runs have in common."""
        for name, value in sorted(self.known.items(), key=lambda item: -len(item[1])):
            if len(value) < 3 or value.startswith("no-"):
                continue
            text = text.replace(value, f"<{name}>")
            short = value.removeprefix("sha256:")[:13]
            if re.fullmatch(r"[0-9a-f]{13}", short):
                text = re.sub(rf"(?<!\w){short}(?!\w)", f"<{name}>", text)
        for pattern, blank, _ in self.blanks:
            text = re.sub(pattern, blank, text, flags=re.MULTILINE)
        return text

    def lines(self, text: str) -> list[str]:
        return [" ".join(line.split()) for line in self.text(text).splitlines()]

    def tree(self, text: str, is_yaml: bool) -> Any:
        """The parsed JSON or YAML of `text`; None when it is neither."""
        if text.lstrip().startswith(("{", "[")):
            with contextlib.suppress(json.JSONDecodeError):  # a template may print brackets too
                return one_pods_events(self._named(parse_json(text)))
        parsed = yaml.safe_load(text) if is_yaml else None
        return self._named(parsed) if isinstance(parsed, dict) else None

    def _named(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self.text(key): self._named(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._named(item) for item in value]
        return self.text(value) if isinstance(value, str) else value


def parse_json(text: str) -> Any:
    """One JSON value, or the list of several (events) behind each other."""
    decoder, values, at = json.JSONDecoder(), [], 0
    while at < len(text.rstrip()):
        value, at = decoder.raw_decode(text, at)
        values.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return values[0] if len(values) == 1 else values


def one_pods_events(tree: Any) -> Any:
    """Events of the pod that the walk made for them, by number: containerd repeats those of all others."""
    if not isinstance(tree, list) or not all("containerEventType" in one for one in tree):
        return tree
    events = [one for one in tree if one["podSandboxStatus"]["id"] == "<event_pod>"]
    return {f"event {number}": one for number, one in enumerate(events)}


def compare(
    step: str, theirs: Output, ours: Output, readers: Mapping[Side, Reader], rules: Sequence[Rule]
) -> list[str]:
    """A line for each difference between what `step` came to; empty when there is none."""
    found = []
    if theirs.status != ours.status:
        found.append(f"exit: {theirs.status} → {ours.status}")
    before, after = problems(theirs.stderr, readers["theirs"]), problems(ours.stderr, readers["ours"])
    if before != after:
        found.append(f"stderr: {before} → {after}")
    is_yaml = "-o yaml" in step
    trees = readers["theirs"].tree(theirs.stdout, is_yaml), readers["ours"].tree(ours.stdout, is_yaml)
    if None not in trees:
        return [*found, *tree_differences(*trees, rules)]
    before, after = readers["theirs"].lines(theirs.stdout), readers["ours"].lines(ours.stdout)
    return [*found, *(f"stdout: {line}" for line in changed(before, after))]


def changed(before: list[str], after: list[str]) -> Iterator[str]:
    yield from (f"missing {line!r}" for line in before if line not in after)
    yield from (f"added {line!r}" for line in after if line not in before)
    if before != after and sorted(before) == sorted(after):
        yield f"order {before} → {after}"


def problems(stderr: str, reader: Reader) -> list[str]:
    """What crictl complains about: its own words, and the code if the runtime said no; not its reason."""
    found = []
    for level, message in re.findall(
        r'^time="[^"]*" level=(\w+) msg="((?:[^"\\]|\\.)*)"', stderr, re.MULTILINE
    ):
        words, said, rest = message.partition("rpc error: code = ")
        code = rest.split(" ", 1)[0] if said else ""
        found.append(" ".join(word for word in (level, reader.text(words.strip()), code) if word))
    return found


def tree_differences(theirs: Any, ours: Any, rules: Sequence[Rule], path: str = "") -> Iterator[str]:
    """Each key that is missing or added, and each value that differs, where no rule says otherwise."""
    rule = next((rule for rule in rules if re.fullmatch(rule.path, path)), None)
    if rule is not None:
        if type(theirs) is not type(ours) and not rule.optional:
            yield f"{path}: {theirs!r} → {ours!r} (types)"
    elif isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}, key=str):
            below = f"{path}.{key}" if path else str(key)
            if key in theirs and key in ours:
                yield from tree_differences(theirs[key], ours[key], rules, below)
            elif not any(rule.optional and re.fullmatch(rule.path, below) for rule in rules):
                yield f"{below}: missing" if key in theirs else f"{below}: added: {ours[key]!r}"
    elif isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) != len(ours):
            yield f"{path}: {len(theirs)} items → {len(ours)}: {theirs!r} → {ours!r}"
        for one, other in zip(ordered(theirs), ordered(ours), strict=False):
            yield from tree_differences(one, other, rules, f"{path}[]")
    elif theirs != ours:
        yield f"{path}: {theirs!r} → {ours!r}"


def ordered(items: list[Any]) -> list[Any]:
    """By what names them: crictl prints some lists as a map gave them."""

    def key(item: Any) -> str:
        if isinstance(item, dict):
            names = (
                "name",
                "type",
                "id",
                "podSandboxId",
                "metadata",
                "attributes",
                "containerId",
                "destination",
            )
            return json.dumps([item.get(name) for name in names], sort_keys=True, default=str)
        return json.dumps(item, sort_keys=True, default=str)

    return sorted(items, key=key)
