"""Answers of plugins, and what of them is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phantom_cri import errors
from phantom_cri.network.cni.program import Outcome
from phantom_cri.network.cni.protocol import addresses, refusal, result_of

ETH0 = {"name": "eth0", "sandbox": "/proc/1/ns/net"}


@pytest.mark.parametrize(
    "answer",
    [b"", b"null", b"[]", b"1", b"{", b'{"ips": {}}', b'{"ips": [{}]}', b'{"interfaces": 1}', b"[" * 99999],
)
def test_what_is_no_result_is_shown(answer: bytes) -> None:
    with pytest.raises(errors.Internal, match=r"^place: .* is not a valid result: "):
        result_of("place", answer)


@pytest.mark.parametrize(
    ("result", "found"),
    [
        ({"ips": [{"address": "10.0.0.2/24"}]}, ("10.0.0.2",)),
        (
            {"ips": [{"version": "4", "address": "10.0.0.2/24", "interface": 0}], "interfaces": [ETH0]},
            ("10.0.0.2",),
        ),
        (
            {"ips": [{"address": "FD00:0::2/64"}, {"address": "10.0.0.2"}, {"address": "10.0.0.2/8"}]},
            ("fd00::2", "10.0.0.2"),
        ),
    ],
)
def test_addresses_come_in_the_results_order_once_each(
    result: dict[str, Any], found: tuple[str, ...]
) -> None:
    assert addresses("place", result_of("place", json.dumps(result).encode())) == found


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({}, "eth0 got no address"),
        ({"ips": []}, "eth0 got no address"),
        ({"ips": [{"address": "10.0.0.300/24"}]}, "'10.0.0.300/24' is not an address"),
        ({"ips": [{"address": "10.0.0.2/24", "interface": 0}]}, "eth0 got no address"),
        ({"ips": [{"address": "10.0.0.2/24", "interface": -1}], "interfaces": [ETH0]}, "eth0 got"),
        (
            {"ips": [{"address": "10.0.0.2/24", "interface": 0}], "interfaces": [{"name": "eth0"}]},
            "eth0 got no address",
        ),
        (
            {"ips": [{"address": "10.0.0.2/24", "interface": 0}], "interfaces": [ETH0 | {"name": "net1"}]},
            "eth0 got no address",
        ),
    ],
)
def test_a_result_without_an_address_for_the_pod_is_refused(result: dict[str, Any], why: str) -> None:
    with pytest.raises(errors.Internal, match=f"^place: .*{why}"):
        addresses("place", result_of("place", json.dumps(result).encode()))


@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        (Outcome(1, b'{"code": 7, "msg": "m", "details": "d"}', b"x"), errors.Internal, "p: m; d (code 7)"),
        (Outcome(1, b"", b'{"code": 7, "msg": "m"}'), errors.Internal, "p: m (code 7)"),
        (Outcome(1, b'{"code": 11, "msg": "m"}', b""), errors.Unavailable, "p: m (code 11)"),
        (Outcome(1, b'{"code": 50, "msg": "m"}', b""), errors.Unavailable, "p: m (code 50)"),
        (Outcome(1, b'{"code": 7, "msg": "a\\u001b\\nb"}', b""), errors.Internal, "p: a\ufffd b (code 7)"),
        (Outcome(2, b"", b""), errors.Internal, "p: exit code 2: nothing"),
        (Outcome(-9, b"out", b""), errors.Internal, "p: signal 9: 'out'"),
        (Outcome(1, b"{}", b"a\n\tb\x1b[0m\xff"), errors.Internal, "p: exit code 1: 'a b\ufffd[0m\ufffd'"),
        (Outcome(1, b"", b"x" * 9999), errors.Internal, f"p: exit code 1: '{'x' * 400}'"),
        (Outcome(1, b'{"code": "x"}', b"no"), errors.Internal, "p: exit code 1: 'no'"),
    ],
)
def test_a_refusal_is_told_in_the_plugins_words(
    outcome: Outcome, kind: type[errors.PhantomError], text: str
) -> None:
    error = refusal("p", outcome)
    assert type(error) is kind and str(error) == text
