"""One layer archive into one folder that overlayfs can use as a lower layer.

The archive is hostile input. Every name is split and resolved component by component inside the layer's own
tree (`tree.Tree` never follows a link), so that nothing can be written outside: `..`, absolute names and
absolute link targets end at the image's root, as in a chroot. A parent that is a symbolic link is followed
inside the image.

Whiteouts (OCI layer spec) only hide lower layers, never an entry of the same archive, in any order. Of two
entries with the same path the last one wins; two folders are merged. docs/images.md, "Archives", compares
this with containerd.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Sequence
from typing import BinaryIO

from phantom_cri.codec import Record
from phantom_cri.errors import InvalidArgument, PhantomError, ResourceExhausted
from phantom_cri.images import layertar, rootfs
from phantom_cri.images.layertar import Entry, LayerStream, TarReader
from phantom_cri.images.limits import Limits
from phantom_cri.images.tree import Tree, copy_entry, copy_xattrs, split

_WHITEOUT = ".wh."
_WHITEOUT_META = ".wh..wh."  # of aufs; only the opaque marker has a meaning
_OPAQUE = ".wh..wh..opq"
_DEPTH_LIMIT = 512
_NAME_LIMIT = 4095
_NODES = {layertar.CHAR: stat.S_IFCHR, layertar.BLOCK_DEVICE: stat.S_IFBLK, layertar.FIFO: stat.S_IFIFO}
_OURS = frozenset(  # errors of the node, not of the archive
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EROFS,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EBADF,
    }
)
_DROPPED_XATTRS = ("trusted.", "user.overlay.")  # overlayfs interprets its own as whiteouts and redirects


class Unpacked(Record, frozen=True):
    """The result for a layer. `needs_lower`: its folder depends on the layers it was unpacked over.

    `names_root`: the archive has an entry for the root; else its attributes are those of the layer below.
    """

    diff_id: str
    needs_lower: bool
    entries: int
    names_root: bool = False


class Cancelled(PhantomError):
    """The pull was cancelled while a thread was unpacking."""

    code = "CANCELLED"


def unpack(
    source: BinaryIO, target: str, lower: Sequence[str], limits: Limits, cancelled: threading.Event
) -> Unpacked:
    """Unpack `source` (gzip, zstd or plain tar; empty is an empty layer) into the empty folder `target`.

    `lower`: folders of the layers below, top first. Blocks; stops soon after `cancelled` is set.
    Raises InvalidArgument for a hostile or unsupported archive, DataLoss for a broken one,
    ResourceExhausted for one over `limits`. The caller has to delete `target` then.
    """
    stream = LayerStream(source, limits.layer_bytes)
    reader = TarReader(stream)
    entries = 0
    with Tree(target) as tree:
        layer = _Layer(tree, lower)
        for entry in reader:
            entries += 1
            if cancelled.is_set():
                raise Cancelled("unpacking was cancelled")
            if entries > limits.layer_entries:
                raise ResourceExhausted(f"layer has more than {limits.layer_entries} entries")
            layer.apply(entry, reader)
        diff_id = stream.digest()
        layer.finish()
    return Unpacked(diff_id, layer.needs_lower, entries, layer.names_root)


class _Layer:
    """A layer folder being written."""

    def __init__(self, tree: Tree, lower: Sequence[str]) -> None:
        self._tree = tree
        self._lower = tuple(lower)
        self._opaque: set[str] = set()
        self._times: dict[str, int] = {}
        self._parents: dict[str, str] = {}
        self.needs_lower = False
        os.fchmod(tree.folder(""), 0o755)

    def apply(self, entry: Entry, reader: TarReader) -> None:
        try:
            self._apply(entry, reader)
        except OSError as error:
            if error.errno in _OURS:
                raise
            raise InvalidArgument(
                f"layer entry {entry.name[:512]!r} cannot be made: {error.strerror}"
            ) from None

    @property
    def names_root(self) -> bool:
        return "" in self._times

    def finish(self) -> None:
        """Apply an opaque root; then set folder times, which changed when children were created."""
        if "" in self._opaque:
            self._hide_lower_root()
        if "" not in self._times and self._lower:
            self._adopt_root(os.lstat(self._lower[0]))
        for path, nanoseconds in self._times.items():  # some may have been replaced
            status = self._tree.status(path)
            if status is not None and stat.S_ISDIR(status.st_mode):
                self._tree.set_time(path, nanoseconds)

    def _apply(self, entry: Entry, reader: TarReader) -> None:
        names = self._components(entry.name)
        if not names:
            if entry.kind == layertar.DIRECTORY:
                self._dress(entry, "", entry.mode)
                self._times[""] = entry.mtime_ns
            return
        if any(name.startswith(_WHITEOUT_META) for name in names) and names[-1] != _OPAQUE:
            return
        if entry.kind == layertar.CHAR and entry.major == entry.minor == 0:
            return  # overlayfs would treat it as a whiteout
        parent = self._parent(names[:-1], entry)
        if names[-1].startswith(_WHITEOUT):
            self._hide(parent, names[-1].removeprefix(_WHITEOUT), entry)
            return
        if entry.kind != layertar.REGULAR:
            self._parents.clear()  # a new link or folder can change the resolution of names
        path = f"{parent}/{names[-1]}" if parent else names[-1]
        if self._make_way(path, entry):
            self._make(path, entry, reader)

    # Names

    def _components(self, name: str) -> list[str]:
        """The components of a name, cleaned lexically: `..` removes the one before it."""
        names: list[str] = []
        for part in name.split("/"):
            if part == "..":
                del names[-1:]
            elif part not in ("", "."):
                names.append(part)
        if len(os.fsencode(name)) > _NAME_LIMIT or len(names) > _DEPTH_LIMIT:
            raise InvalidArgument(
                f"layer entry {name[:80]!r}…: longer than {_NAME_LIMIT} bytes or deeper than {_DEPTH_LIMIT}"
            )
        return names

    def _parent(self, names: list[str], entry: Entry) -> str:
        """The canonical folder of `names`, created if missing."""
        asked = "/".join(names)
        if asked not in self._parents:
            self._parents[asked] = self._walk(names, entry, create=True)
        return self._parents[asked]

    def _walk(self, names: list[str], entry: Entry, *, create: bool) -> str:
        here: list[str] = []
        pending = names[::-1]
        links = 0
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                del here[-1:]
                continue
            target = self._step("/".join([*here, name]), entry, create=create)
            if target is None:
                here.append(name)
            else:
                links += 1
                here = [] if target.startswith("/") else here
                pending.extend(target.split("/")[::-1])
            if links > rootfs.LINK_LIMIT or len(here) > _DEPTH_LIMIT:
                raise InvalidArgument(f"layer entry {entry.name!r}: too many levels of links or folders")
        return "/".join(here)

    def _step(self, path: str, entry: Entry, *, create: bool) -> str | None:
        """None if `path` is a folder of this layer, created if missing; or the target of a link."""
        own = self._tree.status(path)
        if own is not None and stat.S_ISDIR(own.st_mode):
            return None
        if own is not None and stat.S_ISLNK(own.st_mode):
            parent, name = split(path)
            return os.readlink(name, dir_fd=self._tree.folder(parent))
        hidden = own is not None and rootfs.is_whiteout(own)
        if own is not None and not hidden:
            raise InvalidArgument(f"layer entry {entry.name!r}: its parent {path!r} is not a folder")
        below = None if hidden else self._below(path)
        if below is not None and stat.S_ISLNK(below.status.st_mode):
            return os.readlink(below.real)
        if not create and below is None:
            raise InvalidArgument(f"layer entry {entry.name!r}: {path!r} does not exist")
        if hidden:
            self._tree.remove(path)
        self._adopt(path, below)
        if hidden:
            self._set_opaque(path)
        return None

    def _below(self, path: str) -> rootfs.Found | None:
        self.needs_lower = True
        return self._shown_below(path)

    def _shown_below(self, path: str) -> rootfs.Found | None:
        """The entry of the lower layers at `path`, unless this layer hides it."""
        above = path
        while above:
            above = split(above)[0]
            if above in self._opaque:
                return None
        return rootfs.lookup(self._lower, path)

    def _adopt(self, path: str, below: rootfs.Found | None) -> None:
        """Create a parent without an entry: as in the layers below, which it covers, else 0755 of root."""
        self._tree.make_folder(path, 0o755)
        if below is None or not stat.S_ISDIR(below.status.st_mode):
            return
        status = below.status
        mode = stat.S_IMODE(status.st_mode)
        self._tree.dress(
            path, uid=status.st_uid, gid=status.st_gid, mode=mode, xattrs=copy_xattrs(below.real)
        )
        self._times[path] = status.st_mtime_ns

    def _adopt_root(self, below: os.stat_result) -> None:
        """Without an entry for the root copy the lower layer's, as overlayfs shows the topmost one."""
        if not is_plain_root(below):
            mode = stat.S_IMODE(below.st_mode)
            self._tree.dress("", uid=below.st_uid, gid=below.st_gid, mode=mode, xattrs=())
            self.needs_lower = True

    # Whiteouts

    def _hide(self, parent: str, name: str, entry: Entry) -> None:
        """Handles a whiteout, whatever its type: only the name matters."""
        if f"{_WHITEOUT}{name}" == _OPAQUE:
            self._set_opaque(parent)
            return
        if name in ("", ".", ".."):
            raise InvalidArgument(f"layer entry {entry.name!r}: a whiteout of no name")
        path = f"{parent}/{name}" if parent else name
        own = self._tree.status(path)
        if own is not None:
            if stat.S_ISDIR(own.st_mode):
                self._set_opaque(path)
        elif self._shown_below(path) is not None:
            self._tree.whiteout(path)
        else:  # without a lower folder, overlayfs would list the whiteout as a name that cannot be opened
            self.needs_lower = True

    def _set_opaque(self, path: str) -> None:
        if path:
            self._tree.make_opaque(path)
        self._opaque.add(path)

    def _hide_lower_root(self) -> None:
        """overlayfs always merges the roots of layers, so lower children are hidden one by one."""
        self.needs_lower = True
        for name, _ in rootfs.children(self._lower):
            own = self._tree.status(name)
            if own is None:
                self._tree.whiteout(name)
            elif stat.S_ISDIR(own.st_mode):
                self._tree.make_opaque(name)

    # Entries

    def _make_way(self, path: str, entry: Entry) -> bool:
        """Remove what `entry` replaces. False: it is a folder that already exists."""
        own = self._tree.status(path)
        if own is None:
            return True
        folder = entry.kind == layertar.DIRECTORY
        if folder and stat.S_ISDIR(own.st_mode):
            self._dress(entry, path, entry.mode)
            self._times[path] = entry.mtime_ns
            return False
        self._tree.remove(path)
        self._parents.clear()
        if folder:  # lower content was hidden by the removed entry and stays hidden
            self._make_folder(path, entry)
            self._set_opaque(path)
            return False
        return True

    def _make(self, path: str, entry: Entry, reader: TarReader) -> None:
        if entry.kind == layertar.DIRECTORY:
            self._make_folder(path, entry)
        elif entry.kind == layertar.REGULAR:
            self._write_file(path, entry, reader)
        elif entry.kind == layertar.HARDLINK:
            self._link(path, entry)
        elif entry.kind == layertar.SYMLINK:
            if not entry.link:
                raise InvalidArgument(f"layer entry {entry.name!r}: symbolic link without a target")
            self._tree.symlink(entry.link, path)
            self._dress(entry, path, None)
            self._tree.set_time(path, entry.mtime_ns)
        else:
            self._make_node(path, entry)

    def _make_folder(self, path: str, entry: Entry) -> None:
        self._tree.make_folder(path, 0o700)
        self._dress(entry, path, entry.mode)
        self._times[path] = entry.mtime_ns

    def _write_file(self, path: str, entry: Entry, reader: TarReader) -> None:
        fd = self._tree.create(path)
        try:
            reader.copy(
                lambda part: _write_all(fd, part),
                lambda size: os.ftruncate(fd, os.lseek(fd, size, os.SEEK_CUR)),
            )
        finally:
            os.close(fd)
        self._dress(entry, path, entry.mode)
        self._tree.set_time(path, entry.mtime_ns)

    def _make_node(self, path: str, entry: Entry) -> None:
        device = os.makedev(entry.major, entry.minor)
        if not self._tree.privileged and entry.kind != layertar.FIFO:
            return  # mknod(2) is refused without CAP_MKNOD
        self._tree.make_node(path, _NODES[entry.kind], device)
        self._dress(entry, path, entry.mode)
        self._tree.set_time(path, entry.mtime_ns)

    def _link(self, path: str, entry: Entry) -> None:
        """A hard link; a target in a lower layer is copied up first, as overlayfs does."""
        names = [part for part in entry.link.split("/") if part not in ("", ".")]
        if not names or names[-1] == "..":
            raise InvalidArgument(f"layer entry {entry.name!r}: hard link to a folder, {entry.link!r}")
        parent = self._walk(names[:-1], entry, create=False)
        source = f"{parent}/{names[-1]}" if parent else names[-1]
        own = self._tree.status(source)
        if own is None:
            below = self._below(source)
            if below is None or stat.S_ISDIR(below.status.st_mode):
                raise InvalidArgument(
                    f"layer entry {entry.name!r}: hard link to {entry.link!r}, which is no file"
                )
            copy_entry(below.real, below.status, self._tree, source)
        elif stat.S_ISDIR(own.st_mode) or rootfs.is_whiteout(own):
            raise InvalidArgument(
                f"layer entry {entry.name!r}: hard link to {entry.link!r}, which is no file"
            )
        self._tree.link(source, path)
        self._dress_link(entry, path)

    def _dress_link(self, entry: Entry, path: str) -> None:
        """Apply the attributes in a hard link's header to the file, as containerd does.

        Only if they differ: chown(2) removes capabilities, which GNU tar does not repeat in a link's header.
        """
        linked = os.stat(split(path)[1], dir_fd=self._tree.folder(split(path)[0]), follow_symlinks=False)
        mode = None if stat.S_ISLNK(linked.st_mode) else entry.mode
        same_mode = mode is None or mode == stat.S_IMODE(linked.st_mode)
        if entry.xattrs or not same_mode or (linked.st_uid, linked.st_gid) != (entry.uid, entry.gid):
            self._dress(entry, path, mode)
        self._tree.set_time(path, entry.mtime_ns)

    def _dress(self, entry: Entry, path: str, mode: int | None) -> None:
        kept = [item for item in entry.xattrs.items() if not item[0].startswith(_DROPPED_XATTRS)]
        self._tree.dress(path, uid=entry.uid, gid=entry.gid, mode=mode, xattrs=kept)


def is_plain_root(root: os.stat_result) -> bool:
    """Whether a layer's root folder has the default attributes."""
    return (stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid) == (0o755, os.geteuid(), os.getegid())


def _write_all(fd: int, part: memoryview) -> None:
    while part:
        part = part[os.write(fd, part) :]
