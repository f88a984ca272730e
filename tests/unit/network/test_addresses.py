"""IPAM: negative cases, allocation order, recovery after a crash."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantom_cri import codec, errors
from phantom_cri.model import PortMapping
from phantom_cri.network.addresses import AddressBook, PodNetwork, Subnet, parse_subnets


@pytest.mark.parametrize(
    "cidr",
    [
        "",
        "10.0.0.0",
        "10.0.0.1/24",
        "10.0.0.0/31",
        "10.0.0.0/32",
        "fd00::/128",
        "224.0.0.0/24",
        "127.0.0.0/8",
        "x/8",
    ],
)
def test_a_subnet_without_room_or_sense_is_refused_by_name(cidr: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"network\.subnets"):
        Subnet(cidr)


@pytest.mark.parametrize("cidrs", [(), ("10.0.0.0/24", "10.1.0.0/24"), ("fd00::/64", "fd01::/64")])
def test_one_subnet_of_each_version_at_most(cidrs: tuple[str, ...]) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"network\.subnets"):
        parse_subnets(cidrs)


def test_exhaustion_names_the_subnet_and_ends_with_a_return() -> None:
    subnet = Subnet("10.1.2.0/29")
    taken = [subnet.take() for _ in range(5)]
    assert [str(ipaddress.ip_address(packed)) for packed in taken] == [f"10.1.2.{n}" for n in range(2, 7)]
    with pytest.raises(errors.ResourceExhausted, match=r"10\.1\.2\.0/29"):
        subnet.take()
    subnet.give_back("10.1.2.4")
    assert subnet.take() == taken[2]


def test_an_ipv6_subnet_starts_behind_its_gateway() -> None:
    subnet = Subnet("fd00:1::/64")
    assert str(subnet.gateway) == "fd00:1::1/64"
    assert ipaddress.ip_address(subnet.take()) == ipaddress.ip_address("fd00:1::2")


@given(st.lists(st.integers(0, 20)))
def test_the_next_address_is_the_first_free_one_behind_the_last(choices: list[int]) -> None:
    """Each number gives back the n-th held address, or takes one if there is none."""
    subnet = Subnet("10.1.2.0/28")
    free = set(range(2, 15))
    held: list[int] = []
    last = 14
    for choice in choices:
        if choice < len(held):
            number = held.pop(choice)
            subnet.give_back(f"10.1.2.{number}")
            free.add(number)
        elif not free:
            with pytest.raises(errors.ResourceExhausted):
                subnet.take()
        else:
            last = min(free, key=lambda number: (number - last - 1) % 13)
            assert subnet.take() == bytes((10, 1, 2, last))
            free.discard(last)
            held.append(last)


def open_book(folder: Path, live: dict[str, tuple[str, ...]], *cidrs: str) -> AddressBook:
    book = AddressBook(folder, parse_subnets(cidrs or ("10.1.2.0/29", "fd00:1::/64")))
    book.recover(live)
    return book


def take(book: AddressBook, sandbox_id: str) -> tuple[str, ...]:
    packed = book.take(sandbox_id, book.subnets)
    ips = tuple(str(ipaddress.ip_address(address)) for address in packed)
    book.held[sandbox_id] = PodNetwork(ips)
    book.create(sandbox_id, book.held[sandbox_id])
    return ips


@pytest.mark.parametrize("sandbox_id", ["", ".", "../x", "a/b", "a\0", "a" * 129, "-x", "a\n"])
def test_a_sandbox_id_that_is_no_file_name_is_refused(tmp_path: Path, sandbox_id: str) -> None:
    book = open_book(tmp_path, {})
    with pytest.raises(errors.InvalidArgument, match="sandbox_id"):
        book.take(sandbox_id, book.subnets)
    book.close()


def test_a_sandbox_is_attached_once(tmp_path: Path) -> None:
    book = open_book(tmp_path, {})
    take(book, "a")
    with pytest.raises(errors.AlreadyExists, match="sandbox a "):
        book.take("a", book.subnets)
    book.close()


def test_a_full_second_subnet_gives_the_first_address_back(tmp_path: Path) -> None:
    book = open_book(tmp_path, {}, "10.1.0.0/16", "fd00:1::/126")
    for name in ("a", "b"):
        take(book, name)
    for _ in range(3):
        with pytest.raises(errors.ResourceExhausted, match="fd00:1::/126"):
            book.take("c", book.subnets)
    four = book.subnets[0]
    assert len({four.take() for _ in range(four.capacity - 2)}) == four.capacity - 2
    book.close()


def test_a_crash_loses_no_live_address_and_keeps_no_dead_one(tmp_path: Path) -> None:
    before = open_book(tmp_path, {})
    ips = {name: take(before, name) for name in ("a", "b", "c")}
    ports = (PortMapping(host_port=80, container_port=8080),)
    before.write("a", PodNetwork(ips["a"], ports))
    before.close()  # what a kill does too: nothing is written here

    after = open_book(tmp_path, {"a": ips["a"], "b": ips["b"]})
    assert after.held == {"a": PodNetwork(ips["a"], ports), "b": PodNetwork(ips["b"])}
    assert sorted(path.name for path in (tmp_path / "pods").iterdir()) == ["a.json", "b.json"]
    assert take(after, "d") == ("10.1.2.5", "fd00:1::5"), "the cursor goes on where it was"
    later = [take(after, name)[0] for name in ("e", "f")]
    assert later == ["10.1.2.6", "10.1.2.4"]
    with pytest.raises(errors.ResourceExhausted):
        take(after, "g")
    after.close()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"ips": 3}', b'{"unknown": 1}', b"\xff"])
def test_a_spoiled_record_gives_way_to_what_lives(tmp_path: Path, content: bytes) -> None:
    open_book(tmp_path, {}).close()
    (tmp_path / "pods" / "a.json").write_bytes(content)
    (tmp_path / "pods" / "dead.json").write_bytes(content)
    (tmp_path / "pods" / "a.json.77.tmp").write_bytes(content)
    (tmp_path / "cursor").write_bytes(content)
    book = open_book(tmp_path, {"a": ("10.1.2.2", "fd00:1::2")})
    assert book.held == {"a": PodNetwork(("10.1.2.2", "fd00:1::2"))}
    assert [path.name for path in (tmp_path / "pods").iterdir()] == ["a.json"]
    assert take(book, "b") == ("10.1.2.3", "fd00:1::3")
    book.close()


def test_a_cursor_out_of_range_is_no_matter(tmp_path: Path) -> None:
    open_book(tmp_path, {}).close()
    (tmp_path / "cursor").write_bytes(b"\xff" * 32)
    book = open_book(tmp_path, {})
    assert take(book, "a") == ("10.1.2.2", "fd00:1::2")
    book.close()


def test_ports_of_a_sandbox_with_other_addresses_are_dropped(tmp_path: Path) -> None:
    before = open_book(tmp_path, {})
    before.write("a", PodNetwork(("10.1.2.2",), (PortMapping(host_port=80, container_port=80),)))
    before.close()
    after = open_book(tmp_path, {"a": ("10.9.9.9",)})
    assert after.held == {"a": PodNetwork(("10.9.9.9",))}
    after.close()


def test_forgetting_erases_the_record_but_keeps_the_address_back(tmp_path: Path) -> None:
    book = open_book(tmp_path, {}, "10.1.2.0/30")
    ips = take(book, "a")
    assert book.forget("a") == PodNetwork(ips) and book.forget("a") is None
    assert list((tmp_path / "pods").iterdir()) == []
    with pytest.raises(errors.ResourceExhausted):
        take(book, "b")
    book.give_back(ips)
    assert take(book, "b") == ips
    book.close()


def test_a_sandbox_that_knows_no_address_holds_none(tmp_path: Path) -> None:
    before = open_book(tmp_path, {})
    take(before, "half")
    before.close()
    after = open_book(tmp_path, {"half": (), "host-network": ()})
    assert after.held == {} and list((tmp_path / "pods").iterdir()) == []
    after.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.Internal, match="recover addresses"):
        open_book(tmp_path / "file" / "below", {})


LIVE: dict[str, tuple[str, ...]] = {"p1": ("10.1.2.2",)}
PORTS = [{"container_port": 80, "host_port": 8080, "later": 1}]


def stored(folder: Path, **fields: object) -> Path:
    path = folder / "pods" / "p1.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"ips": ["10.1.2.2"], "ports": PORTS, "later": {"x": [1]}, **fields}))
    return path


def test_what_a_later_release_wrote_stays_through_a_change(tmp_path: Path) -> None:
    path = stored(tmp_path)
    book = open_book(tmp_path, LIVE, "10.1.2.0/24")
    book.write("p1", codec.replace(book.held["p1"], ips=("10.1.2.2", "fd00::2")))
    assert json.loads(path.read_bytes()) == {
        "ips": ["10.1.2.2", "fd00::2"],
        "ports": PORTS,
        "later": {"x": [1]},
    }


@pytest.mark.parametrize("ips", [["10.1.2.2"], {"10.1.2.2": "pod"}])
def test_a_record_of_a_newer_schema_is_left_as_it_is(
    tmp_path: Path, ips: object, caplog: pytest.LogCaptureFixture
) -> None:
    """The address is the live pod's. Of one that does not live, it waits for the release that wrote it."""
    path = stored(tmp_path, schema=2, ips=ips)
    before = path.read_bytes()
    book = open_book(tmp_path, LIVE, "10.1.2.0/29")
    assert book.held == {"p1": PodNetwork(("10.1.2.2",))}
    others = [book.subnets[0].take() for _ in range(4)]
    assert b"\x0a\x01\x02\x02" not in others
    assert (
        "p1.json is ignored and not changed, host ports of its pod are closed: it has schema 2" in caplog.text
    )
    assert open_book(tmp_path, {}, "10.1.2.0/29").held == {}
    assert path.read_bytes() == before
    open_book(tmp_path, LIVE, "10.1.2.0/29").forget("p1")
    assert not path.exists(), "a pod that is released"
