"""Our api.proto against `container-runtime-interface-api` from PyPI: CRI v1 as others made it.

It is older (2025, before CRI 1.36) and wants an older protobuf, so it is installed without its dependencies
and its descriptor is read from its source, never imported. What only one side has is listed
here in full: anything else that differs is an error of ours.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from phantom_cri.api.cri.v1 import api_pb2

PACKAGE = "container-runtime-interface-api==2.0.1"

Facts = dict[str, object]

STREAMS = {
    "StreamPodSandboxes": "pod_sandboxes",
    "StreamContainers": "containers",
    "StreamContainerStats": "container_stats",
    "StreamPodSandboxStats": "pod_sandbox_stats",
    "StreamPodSandboxMetrics": "pod_sandbox_metrics",
    "StreamImages": "images",
}
ADDED_IN_1_36 = {
    "ImageSpec.image_ref",
    "RuntimeFeatures.user_namespaces_host_network",
    *(f"{'Image' if name == 'StreamImages' else 'Runtime'}Service.{name}()" for name in STREAMS),
    *(f"{name}Request" for name in STREAMS),
    *(f"{name}Request.filter" for name in STREAMS if name != "StreamPodSandboxMetrics"),
    *(f"{name}Response" for name in STREAMS),
    *(f"{name}Response.{field}" for name, field in STREAMS.items()),
}
# Bytes and string are the same on the wire; 1.36 stopped asking for UTF-8.
CHANGED_IN_1_36 = {"KeyValue.value"}


def facts_of(file: FileDescriptorProto) -> Facts:
    """Every fact that the wire depends on, by a dotted name."""
    facts: Facts = {"package": file.package, "syntax": file.syntax}
    for message in file.message_type:
        facts.update(message_facts(message, ""))
    for enum in file.enum_type:
        facts.update(enum_facts(enum, ""))
    for service in file.service:
        for method in service.method:
            streams = (method.client_streaming, method.server_streaming)
            facts[f"{service.name}.{method.name}()"] = (method.input_type, method.output_type, *streams)
    return facts


def message_facts(message: DescriptorProto, prefix: str) -> Iterator[tuple[str, object]]:
    name = f"{prefix}{message.name}"
    yield name, "map entry" if message.options.map_entry else "message"
    for field in message.field:
        oneof = field.HasField("oneof_index")
        yield f"{name}.{field.name}", (field.number, field.type, field.label, field.type_name, oneof)
    for nested in message.nested_type:
        yield from message_facts(nested, f"{name}.")
    for enum in message.enum_type:
        yield from enum_facts(enum, f"{name}.")


def enum_facts(enum: EnumDescriptorProto, prefix: str) -> Iterator[tuple[str, object]]:
    for value in enum.value:
        yield f"{prefix}{enum.name}={value.name}", value.number


def ours() -> Facts:
    file = FileDescriptorProto()
    api_pb2.DESCRIPTOR.CopyToProto(file)
    return facts_of(file)


def theirs() -> Facts:
    package = importlib.util.find_spec("cri_api")
    if package is None or package.origin is None:
        pytest.fail(f"pip install --no-deps {PACKAGE}")
    source = Path(package.origin).parent / "v1" / "api_pb2.py"
    serialized = [
        call.args[0].value
        for call in ast.walk(ast.parse(source.read_bytes()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "AddSerializedFile"
        and isinstance(call.args[0], ast.Constant)
    ]
    (content,) = serialized
    assert isinstance(content, bytes)
    return facts_of(FileDescriptorProto.FromString(content))


def test_nothing_of_theirs_is_missing() -> None:
    assert theirs().keys() - ours().keys() == set()


def test_what_both_have_is_the_same() -> None:
    other = theirs()
    differing = {name for name, fact in ours().items() if name in other and other[name] != fact}
    assert differing == CHANGED_IN_1_36


def test_only_what_1_36_added_is_ours_alone() -> None:
    assert ours().keys() - theirs().keys() == ADDED_IN_1_36


def test_the_changed_field_differs_only_in_utf8() -> None:
    one, label = FieldDescriptorProto, FieldDescriptorProto.LABEL_OPTIONAL
    assert theirs()["KeyValue.value"] == (2, one.TYPE_STRING, label, "", False)
    assert ours()["KeyValue.value"] == (2, one.TYPE_BYTES, label, "", False)
