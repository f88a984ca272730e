"""Which devices a container asks for: by its field, by its annotations, each once."""

from __future__ import annotations

import pytest

from phantom_cri.cdi import requested
from phantom_cri.errors import InvalidArgument


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpu0",
        "vendor.com/gpu",
        "vendor.com/gpu=",
        "/gpu=0",
        "vendor.com/=0",
        "vendor.com=0",
        "1vendor/gpu=0",
        "vendor/gpu=:0",
        "vendor/gpu=0-",
        "vendor/gpu=0 ",
        "vendor/gpu=a/b",
        "véndor/gpu=0",
        "vendor/gpu=\u0661",
        "a" * 100_000,
    ],
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^CDI_devices: '.{0,200}' is not a qualified name") as refused:
        requested([name], {})
    assert len(str(refused.value)) < 300
    with pytest.raises(InvalidArgument, match=r"^annotations\['cdi.k8s.io/x'\]: "):
        requested([], {"cdi.k8s.io/x": f"vendor/gpu=1,{name}"})


def test_an_annotation_without_a_device_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="annotations"):
        requested([], {"cdi.k8s.io/plugin": ""})


def test_all_that_are_asked_for_in_order() -> None:
    annotations = {
        "cdi.k8s.io/b": "v/c=3",
        "cdi.k8s.io/a_1": "nvidia.com/gpu=0:1,v/c=2",
        "cdi.k8s.iox/y": "nonsense",
        "other": "v/c=9",
    }
    assert requested(["v/c=1", "v/c=2", "v/c=1"], annotations) == (
        "v/c=1",
        "v/c=2",
        "nvidia.com/gpu=0:1",
        "v/c=3",
    )
    assert requested((), {"io.kubernetes.pod.uid": "x"}) == ()
