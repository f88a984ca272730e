"""Image references in docker's format: `[domain[:port]/]path[:tag][@algorithm:hex]`.

Grammar and normalisation follow distribution/reference: a name without a registry is on docker.io, there
without a path in `library/`; no tag and no digest means `latest`, and a tag beside a digest is dropped.
"""

from __future__ import annotations

import re
from functools import lru_cache

from phantom_cri.codec import Record
from phantom_cri.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"([a-z0-9]+):([0-9a-f]+)")
_BARE_ID = re.compile(r"[0-9a-f]{64}")


class Reference(Record, frozen=True):
    """A normalised reference; exactly one of `tag` and `digest` is set."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def canonical(self) -> str:
        """Its name in CRI: `repo:tag` or `repo@digest`."""
        return self.with_digest(self.digest) if self.digest else f"{self.repository}:{self.tag}"

    @property
    def object(self) -> str:
        """The parameter of a registry's manifests endpoint."""
        return self.digest or self.tag

    def with_digest(self, digest: str) -> str:
        return f"{self.repository}@{digest}"


def is_digest(text: str) -> bool:
    """Whether `text` is a digest of a supported algorithm, in canonical form."""
    match = _DIGEST.fullmatch(text)
    return match is not None and _HEX_LENGTH.get(match[1]) == len(match[2])


@lru_cache(maxsize=1024)
def parse(text: str) -> Reference:
    """Normalise `text`; raises InvalidArgument naming it and the mistake."""
    name, _, digest = text.partition("@")
    if "@" in text and not is_digest(digest):
        raise _refused(text, f"digest {digest!r} is not sha256 or sha512 in lower-case hex")
    name, tag = _split_tag(name)
    if tag is not None and not _TAG.fullmatch(tag):
        raise _refused(text, f"tag {tag!r}")
    if _BARE_ID.fullmatch(name):
        raise _refused(text, "64 hex digits are an image id, not a name")
    domain, path = _split_domain(name)
    if not _DOMAIN.fullmatch(domain):
        raise _refused(text, f"registry {domain!r}")
    if not _PATH.fullmatch(path):
        raise _refused(text, f"repository {path!r} (lower case letters, digits and single separators)")
    if len(f"{domain}/{path}") > NAME_LIMIT:
        raise _refused(text, f"name longer than {NAME_LIMIT} characters")
    return Reference(domain, path, "" if digest else tag or DEFAULT_TAG, digest)


def _split_tag(name: str) -> tuple[str, str | None]:
    """A colon after the last slash starts a tag; one before it belongs to a port."""
    colon = name.rfind(":")
    if colon > name.rfind("/"):
        return name[:colon], name[colon + 1 :]
    return name, None


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = first == "localhost" or "." in first or ":" in first or first != first.lower()
    if not (slash and is_domain):
        first, rest = DEFAULT_DOMAIN, name
    if first == "index.docker.io":
        first = DEFAULT_DOMAIN
    if first == DEFAULT_DOMAIN and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest


def _refused(text: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"image reference {text[:512]!r}: {why}")
