"""All verbs that acquire something, each in the ways that differ in what they acquire."""

from __future__ import annotations

from tests.e2e.faults.feature_scenarios import (
    Checkpoint,
    CreateWithDevice,
    CreateWithImageVolume,
    Numbers,
    StartWithDevice,
    UserNamespacePod,
)
from tests.e2e.faults.scenarios import (
    Birth,
    ColdPod,
    CreateContainer,
    CreateWithVolumes,
    ExecSync,
    HostPorts,
    LoadImage,
    PullImage,
    ReopenLog,
    Scenario,
    StartPrepared,
    StartUnprepared,
    UpdateResources,
    WarmPod,
)
from tests.e2e.faults.session_scenarios import (
    Attach,
    AttachBeforeStart,
    AttachTerminal,
    Exec,
    ExecTerminal,
    PortForward,
)

VERBS: tuple[type[Scenario], ...] = (
    ColdPod,
    WarmPod,
    HostPorts,
    UserNamespacePod,
    Birth,
    CreateContainer,
    CreateWithVolumes,
    CreateWithImageVolume,
    CreateWithDevice,
    StartPrepared,
    StartUnprepared,
    StartWithDevice,
    ExecSync,
    Exec,
    ExecTerminal,
    Attach,
    AttachTerminal,
    AttachBeforeStart,
    PortForward,
    Checkpoint,
    UpdateResources,
    ReopenLog,
    Numbers,
    LoadImage,
    PullImage,
)
