"""A container's root and the mounts in it: the ops that open each, and those that attach it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from phantom_cri.errors import InvalidArgument
from phantom_cri.plans import constants
from phantom_cri.plans.mount_options import MountOptions, overlay_options, read_options
from phantom_cri.plans.op import Op
from phantom_cri.plans.ops import (
    Attach,
    Attributes,
    MapIds,
    NewFs,
    OpenTree,
    Overlay,
    OverlayMapped,
    OverlayWith,
    Root,
)
from phantom_cri.plans.plan import Block, Slots
from phantom_cri.plans.spec import Bind, GivenMount, MountRoot, OverlayRoot

Parts = list[Op | Block]


class Mounts:
    """The mounts of one plan. `sources`, then `overlays`, are opened in the host's mount namespace; `root`
    attaches the root and its own mounts, `placed` the other mounts.

    is_mapped: layers are mapped into the pod's user namespace.
    """

    def __init__(self, slots: Slots, *, is_mapped: bool) -> None:
        self.sources: Parts = []
        # After all sources: on old kernels these ops leave the host's mount namespace.
        self.overlays: Parts = []
        self.root: Parts = []
        self.placed: Parts = []
        self._slots = slots
        self._overlay: type[Overlay] = OverlayMapped if is_mapped else Overlay

    def place(self, wanted: Iterable[Bind | GivenMount]) -> None:
        """Raises InvalidArgument naming the mount's field."""
        for index, mount in enumerate(wanted):
            if isinstance(mount, Bind):
                self._bind(mount)
            else:
                self.placed += self._given(mount, f"mounts[{index}]")

    def make_root(self, root: OverlayRoot | MountRoot, slot: int) -> None:
        """Put the root into `slot`, its overlay last. Raises InvalidArgument naming the mount's field."""
        if isinstance(root, OverlayRoot):
            self.overlays.append(self._overlay(slot, root.layers, root.upper, root.work))
            self.root.append(Root(slot))
            return
        _check_targets(root.mounts)
        first, *others = root.mounts
        options = _read(first, "root.mounts[0]")
        self._gather(first, options, slot, "root.mounts[0]")
        if options.propagation & ~(constants.MS_REC | constants.MS_PRIVATE):
            raise InvalidArgument(f"root.mounts[0].options: {list(first.options)}: the root is private")
        self.root.append(Root(slot))
        for index, mount in enumerate(others, 1):
            self.root += self._given(mount, f"root.mounts[{index}]")

    def _bind(self, bind: Bind) -> None:
        slot = self._slots.take()
        if bind.stack:
            self.overlays.append(self._overlay(slot, bind.stack, "", ""))
        else:
            self.sources.append(OpenTree(slot, bind.source, bind.how))
            if bind.is_mapped:
                self.sources.append(MapIds(slot))
        self.placed.append(Attach(slot, bind.target, bind.attributes, bind.propagation, bind.flags))

    def _given(self, mount: GivenMount, field: str) -> Iterator[Op]:
        slot, options = self._slots.take(), _read(mount, field)
        if options.binds or mount.type == "overlay" or mount.source.startswith("/"):
            self._gather(mount, options, slot, field)
        else:
            yield from (_file_system(mount, options, slot), *_attributes(options, slot))
        yield Attach(slot, mount.target, 0, options.propagation, constants.ATTACH_CREATE)

    def _gather(self, mount: GivenMount, options: MountOptions, slot: int, field: str) -> None:
        if options.binds:
            if not mount.source.startswith("/"):
                raise InvalidArgument(f"{field}.source: {mount.source!r} is not an absolute path")
            how = constants.OPEN_RECURSIVE if options.submounts else 0
            self.sources += [OpenTree(slot, mount.source, how), *_attributes(options, slot)]
        elif mount.type == "overlay":
            self.overlays += [_overlay(options, slot, field), *_attributes(options, slot)]
        else:
            self.sources += [_file_system(mount, options, slot), *_attributes(options, slot)]


def _read(mount: GivenMount, field: str) -> MountOptions:
    options = read_options(mount.type, mount.options, f"{field}.options")
    if not mount.type and not options.binds:
        raise InvalidArgument(f"{field}.type: '' names no file system")
    return options


def _file_system(mount: GivenMount, options: MountOptions, slot: int) -> NewFs:
    source = (f"source={mount.source}",) if mount.source else ()
    return NewFs(slot, mount.type, (*source, *options.own))


def _overlay(options: MountOptions, slot: int, field: str) -> Op:
    found = overlay_options(options.own, f"{field}.options")
    flags = constants.OVERLAY_VOLATILE if found.is_volatile else 0
    if found.more:
        return OverlayWith(slot, found.lower, found.upper, found.work, found.more, flags)
    return Overlay(slot, found.lower, found.upper, found.work, flags)


def _attributes(options: MountOptions, slot: int) -> Iterator[Op]:
    if options.attributes:
        yield Attributes(slot, options.attributes)
    if options.recursive:
        yield Attributes(slot, options.recursive, constants.ATTRIBUTES_RECURSIVE)


def _check_targets(mounts: tuple[GivenMount, ...]) -> None:
    if not mounts:
        raise InvalidArgument("root.mounts: must not be empty")
    for index, mount in enumerate(mounts):
        if (mount.target.strip("/") == "") != (index == 0):
            raise InvalidArgument(
                f"root.mounts[{index}].target: {mount.target!r}: the first mount must be the root, others not"
            )
