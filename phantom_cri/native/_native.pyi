from cffi import FFI

ffi: FFI

class _Lib:
    @staticmethod
    def ph_spawn(
        binary_fd: int,
        title: bytes,
        clone_flags: int,
        listen_fd: int,
        state_fd: int,
        cgroup_fd: int,
        stderr_fd: int,
        pidfd: FFI.CData,
    ) -> int: ...
    @staticmethod
    def ph_raise_file_limit() -> int: ...
    @staticmethod
    def ph_bpf(command: int, attributes: FFI.CData, size: int) -> int: ...
    @staticmethod
    def syscall(number: int, *words: FFI.CData) -> int: ...
    @staticmethod
    def mount(source: bytes, target: bytes, kind: bytes, flags: int, data: FFI.CData) -> int: ...
    @staticmethod
    def syncfs(fd: int) -> int: ...
    @staticmethod
    def unshare(flags: int) -> int: ...

lib: _Lib
