"""All errors, as one family of exceptions.

Every error that a caller can get is a `PhantomError`. Its `code` is the name of the gRPC status code that it
is sent as (only `phantom_cri.rpc.calls` maps the names to grpc objects, so that nothing else imports grpc).
A message names the field or operation and the refused value.
Imports nothing of ours.
"""

from __future__ import annotations

import errno as errno_names
import os


class PhantomError(Exception):
    """Base of all errors; `code` is a gRPC status code name."""

    code = "UNKNOWN"


class InvalidArgument(PhantomError):
    """The request is invalid in any state: names the field and the value."""

    code = "INVALID_ARGUMENT"


class NotFound(PhantomError):
    """Names the kind of thing and the id or reference that is unknown."""

    code = "NOT_FOUND"


class AlreadyExists(PhantomError):
    code = "ALREADY_EXISTS"


class FailedPrecondition(PhantomError):
    """The request is valid but not in this state: names the state and the verb."""

    code = "FAILED_PRECONDITION"


class PermissionDenied(PhantomError):
    code = "PERMISSION_DENIED"


class Unauthenticated(PhantomError):
    code = "UNAUTHENTICATED"


class ResourceExhausted(PhantomError):
    """Addresses, pids, disk space or one of our limits is exhausted: names which."""

    code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(PhantomError):
    code = "DEADLINE_EXCEEDED"


class Unavailable(PhantomError):
    """A temporary failure: can be retried later."""

    code = "UNAVAILABLE"


class RegistryUnavailable(Unavailable):
    """No registry answered. The kubelet shows the reason only with this code and this first word."""

    code = "UNKNOWN"

    def __init__(self, why: str) -> None:
        super().__init__(f"RegistryUnavailable: {why}")


class Unimplemented(PhantomError):
    code = "UNIMPLEMENTED"


class Internal(PhantomError):
    """A bug of ours, or the kernel refused what it should allow."""

    code = "INTERNAL"


class DataLoss(PhantomError):
    """Content that does not match its digest, or a record that cannot be read back."""

    code = "DATA_LOSS"


class ConfigError(PhantomError):
    """A configuration key is unknown or its value is refused: names the key."""

    code = "INVALID_ARGUMENT"


def errno_name(number: int) -> str:
    """`13` → `EACCES`; an unknown number is returned as text. Negative numbers are taken as -errno."""
    return errno_names.errorcode.get(abs(number), str(abs(number)))


SHORTAGES = frozenset(
    {
        errno_names.EAGAIN,
        errno_names.EDQUOT,
        errno_names.EMFILE,
        errno_names.ENFILE,
        errno_names.ENOBUFS,
        errno_names.ENOMEM,
        errno_names.ENOSPC,
    }
)
"""Errnos for an exhausted resource of the node: a retry, or fewer pods, may succeed."""


def kernel_error(operation: str, number: int) -> PhantomError:
    """For a failed system call, e.g. `mkdir /a: EACCES (Permission denied)`.

    ResourceExhausted when a resource of the node is exhausted, else Internal.
    """
    kind = ResourceExhausted if abs(number) in SHORTAGES else Internal
    return kind(f"{operation}: {errno_name(number)} ({os.strerror(abs(number))})")
