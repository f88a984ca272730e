"""libnftables through cffi: commands as text, run in one transaction. Optional on a node."""

from __future__ import annotations

import os
from typing import Any

import cffi

_HEADER = """
struct nft_ctx;
struct nft_ctx *nft_ctx_new(uint32_t flags);
void nft_ctx_free(struct nft_ctx *ctx);
int nft_ctx_buffer_output(struct nft_ctx *ctx);
int nft_ctx_buffer_error(struct nft_ctx *ctx);
const char *nft_ctx_get_output_buffer(struct nft_ctx *ctx);
const char *nft_ctx_get_error_buffer(struct nft_ctx *ctx);
int nft_run_cmd_from_buffer(struct nft_ctx *nft, const char *buf);
"""
_LIBRARY = "libnftables.so.1"
_FD_SETSIZE = 1024


class NftablesError(Exception):
    """nftables refused a command or is missing; with the message of libnftables or the dynamic linker."""


class Nftables:
    """One libnftables context, in the network namespace where it was created. For one thread at a time."""

    def __init__(self) -> None:
        """Raises NftablesError if the library is missing."""
        self._ffi, self._library = _load()
        _need_low_fd()
        self._context = self._library.nft_ctx_new(0)
        if self._context == self._ffi.NULL:
            raise NftablesError("nft_ctx_new failed: out of memory or no netlink")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> str:
        """Run all commands or none, and return what they print. Raises NftablesError."""
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        # reading a buffer also empties it for the next call
        output = self._text(self._library.nft_ctx_get_output_buffer(self._context))
        complaint = self._text(self._library.nft_ctx_get_error_buffer(self._context))
        if failed:
            first = next((line for line in complaint.splitlines() if line.strip()), "no reason given")
            raise NftablesError(first)
        return output

    def close(self) -> None:
        if self._context != self._ffi.NULL:
            self._library.nft_ctx_free(self._context)
            self._context = self._ffi.NULL

    def _text(self, buffer: Any) -> str:
        raw: bytes = self._ffi.string(buffer)
        return raw.decode("utf-8", "replace")


def _need_low_fd() -> None:
    """libnftables uses select(2), which aborts the process at a descriptor of 1024 or more (FD_SETSIZE).

    Raises NftablesError if its socket would be one.
    """
    probe = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.close(probe)
    if probe >= _FD_SETSIZE:
        raise NftablesError(f"libnftables needs a file descriptor below {_FD_SETSIZE}, and all are in use")


def _load() -> tuple[Any, Any]:
    """(FFI, library), both untyped: the checker does not read C declarations. Raises NftablesError."""
    ffi = cffi.FFI()
    ffi.cdef(_HEADER)
    try:
        return ffi, ffi.dlopen(_LIBRARY)
    except OSError as error:
        raise NftablesError(f"{_LIBRARY} cannot be loaded (Debian: libnftables1): {error}") from error
