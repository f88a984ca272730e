"""The pods and containers of the walk, as the files that crictl reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.e2e.crictl_walk.steps import IMAGE, SERVER


def pod(name: str, logs: Path, cgroup: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-of-{name}", "attempt": 0}
    linux = {"cgroup_parent": cgroup}
    return {"metadata": metadata, "log_directory": str(logs / name), "linux": linux, **more}


def container(name: str, *command: str, image: str = IMAGE, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "attempt": 0},
        "image": {"image": image},
        "command": list(command),
        "log_path": f"{name}.log",
        "linux": {},
        **more,
    }


def files(logs: Path, cgroup: str) -> dict[str, Mapping[str, Any]]:
    """By the name that steps call them."""
    full = pod(
        "walk",
        logs,
        cgroup,
        hostname="walker",
        labels={"app": "walk"},
        annotations={"note": "a pod"},
        dns_config={"servers": ["192.0.2.1"], "searches": ["example.org"], "options": ["ndots:2"]},
        port_mappings=[{"protocol": 0, "container_port": 80, "host_port": 0}],
    )
    web = container(
        "web",
        image=SERVER,
        labels={"part": "web"},
        annotations={"note": "a container"},
        envs=[{"key": "COLOR", "value": "green"}],
        mounts=[{"host_path": str(logs), "container_path": "/logs", "readonly": True}],
        linux={"resources": {"memory_limit_in_bytes": 67108864, "cpu_shares": 256}},
    )
    return {
        "pod_file": full,
        "bare_pod_file": pod("bare", logs, cgroup),
        "other_pod_file": pod("other", logs, cgroup, labels={"app": "other"}),
        "third_pod_file": pod("third", logs, cgroup),
        "event_pod_file": pod("event", logs, cgroup),
        "probe_pod_file": pod("probe", logs, cgroup),
        "no_metadata_file": {"log_directory": str(logs)},
        "web_file": web,
        "reader_file": container("reader", "sh", stdin=True, stdin_once=True),
        "made_file": container("made", "sleep", "1000", working_dir="/tmp"),
        "event_file": container("event", "sleep", "1000"),
        "failing_file": container("failing", "sh", "-c", "echo out; echo more; exit 7"),
        "missing_image_file": container("imageless", "true", image="registry.k8s.io/nothing:1"),
        "missing_program_file": container("programless", "/nothing"),
    }


def write_files(folder: Path, logs: Path, cgroup: str) -> dict[str, str]:
    """Writes them below `folder`, for pods below `cgroup`; answers the path of each."""
    paths = {}
    for name, content in files(logs, cgroup).items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content))
        paths[name] = str(path)
    return paths
