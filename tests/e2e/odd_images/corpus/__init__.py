"""All the cases, by what is odd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.e2e.odd_images.case import Case
from tests.e2e.odd_images.corpus import (
    archives,
    configs,
    documents,
    indexes,
    links,
    manifests,
    nodes,
    paths,
    processes,
    streams,
    users,
    volumes,
)

TOPICS: Mapping[str, Sequence[Case]] = {
    "One path twice in a layer": archives.TWICE,
    "Attributes, modes and owners": archives.ATTRIBUTES,
    "Times": archives.TIMES,
    "Devices and unusual types": nodes.NODES,
    "Sparse files": nodes.SPARSE,
    "Names": paths.NAMES,
    "Parents": paths.PARENTS,
    "Links": links.LINKS,
    "Whiteouts": links.WHITEOUTS,
    "Compression": (*streams.GZIP, *streams.OTHERS),
    "Ends of archives": streams.ENDS,
    "Layers": manifests.LAYERS,
    "DiffIDs": manifests.DIFF_IDS,
    "Media types of config and layers": manifests.TYPES,
    "Manifests": documents.DOCUMENTS,
    "Indexes": indexes.INDEXES,
    "Configs": configs.FILE,
    "Platforms and programs": configs.PLATFORM,
    "Env": processes.ENVIRONMENT,
    "Entrypoint and Cmd": processes.COMMAND,
    "WorkingDir": processes.WORKING_DIR,
    "StopSignal": processes.SIGNALS,
    "User": users.USERS,
    "passwd and group": users.FILES,
    "Volumes": volumes.VOLUMES,
}
CASES: Sequence[Case] = [case for cases in TOPICS.values() for case in cases]
