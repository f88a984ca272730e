"""The ops of the kernel's security modules: labels of processes and files."""

from __future__ import annotations

from phantom_cri.plans.op import Op, Slots


class MountLabel(Op, frozen=True):
    number = 15
    signature = "s"
    context: str

    def describe(self, slots: Slots) -> str:
        return f"label new mounts {self.context}"


class FileLabel(Op, frozen=True):
    number = 37
    signature = "ss"
    path: str
    context: str

    def describe(self, slots: Slots) -> str:
        return f"label {self.path} {self.context}"


class ExecLabel(Op, frozen=True):
    """`module`: "apparmor", `name`: of a loaded profile; or "selinux" and a context."""

    number = 36
    signature = "ss"
    module: str
    name: str

    def describe(self, slots: Slots) -> str:
        return f"execute as {self.module} {self.name}"
