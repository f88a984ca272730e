"""One virtual machine: booted, asked to run commands, reset, ended."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from harness.tools import ROOT
from tests.e2e.vm.initramfs import initramfs
from tests.e2e.vm.kernels import Kernel

BOOT_S = 600.0
"""Seconds within which the machine's agent answers, on a host with nothing to spare."""

MEMORY_MIB = 3072
DISK_MIB = 256

_VIRTIOFSD = "/usr/lib/qemu/virtiofsd"

_COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 fstab=no systemd.gpt_auto=no systemd.unified_cgroup_hierarchy=1 "
    "systemd.unit=phantom-vm.target systemd.show_status=no systemd.log_level=warning "
    "systemd.mask=systemd-timesyncd.service systemd.mask=apparmor.service "
    "systemd.mask=systemd-tmpfiles-setup.service systemd.mask=systemd-journal-flush.service"
)


class Machine:
    """Use as a context. `folder` takes its socket, disk and console log."""

    def __init__(self, kernel: Kernel, folder: Path, parameters: str = "") -> None:
        """`parameters` are added to the kernel's command line."""
        self.kernel, self._folder, self._parameters = kernel, folder, parameters
        self.console = folder / "console.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._files: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._received = b""

    def __enter__(self) -> Machine:
        with open(self._folder / "disk", "wb") as disk:
            disk.truncate(DISK_MIB << 20)
        self._boot()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def run(self, command: str, seconds: float = 300.0, output: list[bytes] | None = None) -> tuple[int, str]:
        """Exit code and output of a shell command in the machine; 124 when it took longer.

        `output` takes the lines as they come. Raises ConnectionError when the machine ends meanwhile.
        """
        assert self._line is not None
        self._line.sendall(json.dumps({"command": command, "seconds": seconds}).encode() + b"\n")
        output = [] if output is None else output
        code = self._await_code(time.monotonic() + seconds + 30.0, output)
        return code, b"".join(output).decode(errors="replace")

    def pull_plug(self) -> None:
        """From any thread; what runs in the machine is cut off where it is."""
        assert self._process is not None
        self._process.kill()

    def reset(self) -> None:
        """Pull the plug and boot again: what is left of all that the machine had is its disk."""
        self.end()
        self._received = b""
        self._boot()

    def end(self) -> None:
        if self._line is not None:
            self._line.close()
        for process in filter(None, (self._process, self._files)):
            process.kill()
            process.wait()

    def _boot(self) -> None:
        try:
            self._start()
            self._await_code(time.monotonic() + BOOT_S, [])
        except BaseException:
            self.end()
            raise

    def _start(self) -> None:
        for name in ("agent.sock", "files.sock"):
            (self._folder / name).unlink(missing_ok=True)
        (self._folder / "initramfs").write_bytes(initramfs(self.kernel))
        listener = socket.socket(socket.AF_UNIX)
        with listener, open(self.console, "ab") as console:
            listener.bind(str(self._folder / "agent.sock"))
            listener.listen(1)
            self._files = subprocess.Popen(self._file_server(), stdout=console, stderr=console)
            while not (self._folder / "files.sock").exists():
                assert self._files.poll() is None, self._tail()
                time.sleep(0.01)
            self._process = subprocess.Popen(self._command(), stdout=console, stderr=console)
            listener.settimeout(30.0)
            self._line = listener.accept()[0]

    def _file_server(self) -> list[str]:
        options = "-o source=/ -o cache=always -o sandbox=chroot -o xattr --thread-pool-size=2"
        return [_VIRTIOFSD, f"--socket-path={self._folder}/files.sock", *options.split()]

    def _command(self) -> list[str]:
        words = (
            f"-accel tcg,thread=multi,tb-size=1024 -cpu max,la57=off -smp 2 -m {MEMORY_MIB} "
            "-nodefaults -nographic -no-reboot "
            f"-serial file:/dev/stdout -serial unix:{self._folder}/agent.sock -device virtio-rng-pci "
            f"-kernel {self.kernel.image} -initrd {self._folder}/initramfs "
            f"-object memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on -numa node,memdev=memory "
            f"-chardev socket,id=files,path={self._folder}/files.sock "
            "-device vhost-user-fs-pci,chardev=files,tag=host "
            f"-drive file={self._folder}/disk,format=raw,if=virtio"
        )
        return [
            "qemu-system-x86_64",
            *words.split(),
            "-append",
            " ".join(
                (
                    _COMMAND_LINE,
                    f"phantom_modules={self.kernel.modules} phantom_checkout={ROOT}",
                    self._parameters,
                )
            ),
        ]

    def _await_code(self, deadline: float, output: list[bytes]) -> int:
        assert self._line is not None
        while True:
            while b"\n" in self._received:
                line, _, self._received = self._received.partition(b"\n")
                answer = json.loads(line)
                if "code" in answer:
                    return int(answer["code"])
                output.append(base64.b64decode(answer["output"]))
            self._line.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                chunk = self._line.recv(1 << 16)
            except TimeoutError:
                raise TimeoutError(f"the machine does not answer; its console ends: {self._tail()}") from None
            if not chunk:
                raise ConnectionError(f"the machine has ended; its console ends: {self._tail()}")
            self._received += chunk

    def _tail(self) -> str:
        return self.console.read_text(errors="replace")[-2000:]
