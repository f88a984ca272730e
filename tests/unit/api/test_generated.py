from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor

from phantom_cri.api.cri.v1 import api_pb2

ROOT = Path(__file__).parents[3]


def test_generated_code_is_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "api/generate", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_check_tells_a_stale_file(tmp_path: Path) -> None:
    copy = tmp_path / "api"
    (copy / "cri/v1").mkdir(parents=True)
    for name in ("generate", "cri/v1/api.proto"):
        (copy / name).write_bytes((ROOT / "api" / name).read_bytes())
    (copy / "cri/v1/old_pb2.py").write_text("")
    check = [sys.executable, str(copy / "generate"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "api/cri/v1/api_pb2.py is not current" in done.stderr
    assert "api/cri/v1/old_pb2.py is not current" in done.stderr
    subprocess.run(check[:-1], check=True)
    assert subprocess.run(check, check=False).returncode == 0
    assert not (copy / "cri/v1/old_pb2.py").exists()


def test_all_41_calls_of_1_36() -> None:
    services = api_pb2.DESCRIPTOR.services_by_name
    assert {name: len(service.methods) for name, service in services.items()} == {
        "RuntimeService": 35,
        "ImageService": 6,
    }


def test_secrets_are_redacted_from_printed_messages() -> None:
    redacted = {f.name for f in api_pb2.AuthConfig.DESCRIPTOR.fields if f.GetOptions().debug_redact}
    assert redacted == {"password", "auth", "identity_token", "registry_token"}


def test_every_stream_has_one_repeated_field() -> None:
    for service in api_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            if method.name.startswith("Stream"):
                (field,) = method.output_type.fields
                assert field.is_repeated and field.type == FieldDescriptor.TYPE_MESSAGE
