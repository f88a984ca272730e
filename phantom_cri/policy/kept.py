"""Compiled policies on disk, for later daemons.

An exec has to run under the policy of its container, even if the policy's file, a Localhost profile or the
configuration has changed since, and a later daemon manages the pod. So each distinct compiled policy is
written once, to `FOLDER/HASH.json`, where HASH is the hash of the file's content.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Collection
from functools import lru_cache

from phantom_cri.codec import DecodeError, from_json, to_json, write_atomically
from phantom_cri.errors import DataLoss, FailedPrecondition, kernel_error
from phantom_cri.model import CompiledPolicy, PolicyRef

_ENDING = ".json"


class KeptPolicies:
    """The folder must contain nothing else. Its content is trusted like the records of containers."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._written: set[str] = set()

    def __len__(self) -> int:
        return len(self._written)

    def keep(self, policy: CompiledPolicy) -> None:
        """Store a policy; idempotent, written only once. Raises OSError."""
        digest = reference(policy).hash
        if digest not in self._written:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            write_atomically(self._path(digest), to_json(policy))
            self._written.add(digest)

    def read(self, ref: PolicyRef) -> CompiledPolicy:
        """The stored policy, decoded strictly: a policy is applied completely or not at all.

        Raises DataLoss for one that is missing or damaged, FailedPrecondition for one of a newer phantom-cri.
        """
        path = self._path(ref.hash)
        try:
            with open(path, "rb") as file:
                content = file.read()
            if hashlib.sha256(content).hexdigest() != ref.hash:
                raise DataLoss(f"policy {ref.name!r}: {path} is damaged")
            return from_json(content, CompiledPolicy)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise DataLoss(f"policy {ref.name!r}: {path} is gone") from error
            raise kernel_error(f"policy {ref.name!r}: read {path}", error.errno or 0) from error
        except DecodeError as error:
            raise FailedPrecondition(
                f"policy {ref.name!r}: {path} is of a newer phantom-cri: {error}"
            ) from error

    def drop_unused(self, used: Collection[str]) -> None:
        """Remove all except those with the hashes `used`, and temporary files. Raises OSError."""
        for name in os.listdir(self._folder) if os.path.isdir(self._folder) else ():
            digest = name.removesuffix(_ENDING)
            if digest in used:
                self._written.add(digest)
            else:
                os.unlink(os.path.join(self._folder, name))
                self._written.discard(digest)

    def _path(self, digest: str) -> str:
        return os.path.join(self._folder, digest + _ENDING)


@lru_cache(maxsize=256)
def reference(policy: CompiledPolicy) -> PolicyRef:
    """Computed once for each distinct policy: a filter has some 10 KiB."""
    return PolicyRef(name=policy.name, hash=hashlib.sha256(to_json(policy)).hexdigest())
