"""Random images whose meaning is not in doubt: what containerd shows of them is right.

Left out is what containerd refuses, or shows otherwise than if the layers were applied one after another
(each is an example of test_where_containerd_differs):

* A folder at a path that the same layer hid before, by a whiteout or by a file that it replaces: containerd
  merges it with the folder below again. What is below it without a folder of its own it refuses.
* The opaque marker of the image's root, which overlayfs does not heed.
* A path that leads through a symbolic link of a lower layer: containerd makes a folder in its place.
* A folder without an entry at a path whose parent is no folder in some lower layer: containerd refuses it.
* A hard link to a file of a lower layer: containerd refuses it.
* A folder with folders in it that another kind of file replaces in the same layer: containerd refuses it.
* A whiteout of what the same layer has, though it means lower layers only: containerd refuses it.

And what only containerd does: it gives a hard link's owner and mode to its target (GNU tar does not), and in
the lowest layer deletes folders without an entry from a folder when an opaque marker follows.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from harness.image import LayerBuilder

Member = tuple[str, bytes, dict[str, Any]]
FOLDER, FILE, LINK, HARD = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
FORMATS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)

NAMES = ("a", "b", "c", "d e", "\N{LATIN SMALL LETTER E WITH ACUTE}")
TARGETS = ("a", "/a", "../b", "/a/b", "missing/x", "/", "..", "../../../../etc", ".", "a//b/")


@dataclass(frozen=True)
class Step:
    """What may be put into a layer, where it makes sense there."""

    verb: str
    path: str
    prefix: str
    attributes: Mapping[str, Any]
    content: bytes
    target: str
    pick: int


@dataclass
class RandomLayer:
    format: int
    steps: list[Step] = field(repr=False)
    members: list[Member] = field(default_factory=list)

    def archive(self) -> bytes:
        builder = LayerBuilder(self.format)
        for name, kind, more in self.members:
            builder.member(name, kind, **more)
        return builder.finish()


@dataclass(frozen=True)
class Below:
    """What lower layers show (path → kind), and the paths at which some layer has no folder."""

    visible: Mapping[str, bytes]
    no_folders: frozenset[str]


def steps() -> st.SearchStrategy[Step]:
    attributes = st.fixed_dictionaries(
        {
            "mode": st.sampled_from([0o644, 0o755, 0o700, 0o4755, 0o2755, 0o1777, 0]),
            "uid": st.sampled_from([0, 1000, 65534]),
            "gid": st.sampled_from([0, 33, 65534]),
            "mtime": st.sampled_from([0, 1, 1_600_000_000, 1_600_000_000.5]),
            "xattrs": st.dictionaries(
                st.sampled_from(["user.a", "user.b"]), st.sampled_from(["x", "\xff", ""])
            ),
        }
    )
    verbs = [
        "folder",
        "folder",
        "file",
        "file",
        "symlink",
        "hard link",
        "fifo",
        "device",
        "whiteout",
        "opaque",
    ]
    return st.builds(
        Step,
        verb=st.sampled_from([*verbs, "through"]),
        path=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join),
        prefix=st.sampled_from(["", "", "./", "/"]),
        attributes=attributes,
        content=st.sampled_from([b"", b"x", b"y" * 513]),
        target=st.sampled_from(TARGETS),
        pick=st.integers(0, 7),
    )


@st.composite
def images(draw: st.DrawFn) -> list[RandomLayer]:
    """One to four layers, lowest first, one of which may be there again."""
    one = st.builds(RandomLayer, st.sampled_from(FORMATS), st.lists(steps(), max_size=10))
    layers, below = draw(st.lists(one, min_size=1, max_size=4)), Below({}, frozenset())
    for layer in layers:
        layer.members, below = lay(layer, below)
    again = draw(st.none() | st.sampled_from(layers))
    if again is not None and lay(again, below)[0] == again.members:  # where it is still without doubt
        layers.append(again)
    return layers


def lay(layer: RandomLayer, below: Below) -> tuple[list[Member], Below]:
    """The members that a layer's steps come to over what is below, and what there is then."""
    model = _Model(below, layer.format)
    for step in layer.steps:
        model.take(step)
    return model.members, model.shown()


def above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


class _Model:
    def __init__(self, below: Below, format_: int) -> None:
        self._visible, self._no_folders, self._format = below.visible, below.no_folders, format_
        self._own: dict[str, bytes] = {}
        self._attributes: dict[str, Mapping[str, Any]] = {}
        self._hidden: set[str] = set()
        self._opaque: set[str] = set()
        self.members: list[Member] = []

    def shown(self) -> Below:
        visible = {path: kind for path in self._visible if (kind := self._below(path))} | self._own
        no_folders = {path for path, kind in self._own.items() if kind != FOLDER} | self._hidden
        return Below(visible, self._no_folders | no_folders)

    def take(self, step: Step) -> None:
        make = {
            "whiteout": self._whiteout,
            "opaque": self._make_opaque,
            "hard link": self._link,
            "through": self._through,
        }
        make.get(step.verb, self._entry)(step)

    def _below(self, path: str) -> bytes | None:
        """What lower layers have at `path`, unless this layer hides it."""
        if path in self._hidden or not {*above(path)}.isdisjoint(self._hidden | self._opaque):
            return None
        if any(self._own.get(each, FOLDER) != FOLDER for each in above(path)):
            return None
        return self._visible.get(path)

    def _reachable(self, path: str) -> bool:
        """Whether everything above `path` is a folder or may become one."""
        kinds = [self._own.get(each) or self._below(each) or FOLDER for each in above(path)]
        unnamed = [each for each in above(path) if each not in self._own]
        in_doubt = any(not self._no_folders.isdisjoint(above(each)) for each in unnamed)
        return all(kind == FOLDER for kind in kinds) and self._hidden.isdisjoint(above(path)) and not in_doubt

    def _fits(self, path: str, kind: bytes) -> bool:
        was_hidden = path in self._hidden or self._own.get(path, FOLDER) != FOLDER
        merges = kind == FOLDER and was_hidden and self._visible.get(path) == FOLDER
        return self._reachable(path) and not merges and (kind == FOLDER or not self._has_folders(path))

    def _has_folders(self, path: str) -> bool:
        """Whether this layer has an entry for a folder below `path`."""
        names = [name for name, kind in self._own.items() if kind == FOLDER and name in self._attributes]
        return any(name.startswith(f"{path}/") for name in names)

    def _put(self, path: str, kind: bytes, attributes: Mapping[str, Any]) -> None:
        for each in above(path):
            self._own[each] = FOLDER
        if kind != FOLDER:
            below = f"{path}/"
            self._own = {each: kind for each, kind in self._own.items() if not each.startswith(below)}
            self._opaque = {each for each in self._opaque if each != path and not each.startswith(below)}
            self._hidden = {each for each in self._hidden if not each.startswith(below)}
            self._attributes = {each: found for each, found in self._attributes.items() if each in self._own}
        self._own[path], self._attributes[path] = kind, attributes
        self._hidden.discard(path)

    def _emit(self, name: str, kind: bytes, step: Step, attributes: Mapping[str, Any], **more: Any) -> None:
        fields = {key: value for key, value in attributes.items() if key != "xattrs"}
        if self._format == tarfile.PAX_FORMAT and kind in (FOLDER, FILE):
            found = attributes["xattrs"].items()
            fields["pax_headers"] = {f"SCHILY.xattr.{key}": value for key, value in found}
        elif self._format != tarfile.PAX_FORMAT:
            fields["mtime"] = int(fields["mtime"])
        self.members.append((step.prefix + name, kind, {**fields, **more}))

    def _entry(self, step: Step) -> None:
        kinds = {"folder": FOLDER, "file": FILE, "symlink": LINK, "fifo": tarfile.FIFOTYPE}
        kind = kinds.get(step.verb, tarfile.CHRTYPE)
        if not self._fits(step.path, kind):
            return
        more: dict[str, Any] = {"content": step.content} if kind == FILE else {}
        if kind == LINK:
            more = {"linkname": step.target}
        elif kind == tarfile.CHRTYPE:
            more = {"devmajor": 1, "devminor": 3}
        self._put(step.path, kind, step.attributes)
        self._emit(step.path, kind, step, step.attributes, **more)

    def _whiteout(self, step: Step) -> None:
        path = step.path
        if path in self._own or path in self._hidden or not self._reachable(path):
            return
        self._own.update(dict.fromkeys(above(path), FOLDER))
        self._hidden.add(path)
        parent, slash, name = path.rpartition("/")
        self._emit(f"{parent}{slash}.wh.{name}", FILE, step, {"mode": 0o644, "mtime": 0, "xattrs": {}})

    def _make_opaque(self, step: Step) -> None:
        path = step.path
        kind = self._own.get(path) or self._below(path) or FOLDER
        inner = [each for each in {*self._own, *self._hidden} if each.startswith(f"{path}/")]
        if kind != FOLDER or not self._reachable(f"{path}/.wh..wh..opq"):
            return
        if not self._attributes.keys() >= set(inner):
            return
        self._own.update(dict.fromkeys([*above(path), path], FOLDER))
        self._opaque.add(path)
        self._emit(f"{path}/.wh..wh..opq", FILE, step, {"mode": 0o644, "mtime": 0, "xattrs": {}})

    def _link(self, step: Step) -> None:
        known = [path for path, kind in self._own.items() if kind != FOLDER]
        if not known or not self._fits(step.path, HARD):
            return
        target = known[step.pick % len(known)]
        if target == step.path or target.startswith(f"{step.path}/"):
            return
        attributes = self._attributes[target]
        self._put(step.path, self._own[target], attributes)
        self._emit(step.path, HARD, step, attributes, linkname=target)

    def _through(self, step: Step) -> None:
        """A symbolic link to a folder of this layer, and a file whose name leads through the link."""
        folders = [path for path, kind in self._own.items() if kind == FOLDER]
        if not folders or not self._fits(step.path, LINK):
            return
        folder = folders[step.pick % len(folders)]
        if f"{folder}/".startswith(f"{step.path}/") or not self._fits(f"{folder}/t", FILE):
            return
        self._put(step.path, LINK, step.attributes)
        self._emit(step.path, LINK, step, step.attributes, linkname=f"/{folder}")
        self._put(f"{folder}/t", FILE, step.attributes)
        self._emit(f"{step.path}/t", FILE, step, step.attributes, content=step.content)
