"""What the node remembers of endpoints that failed."""

from __future__ import annotations

from phantom_cri.images.outages import FIRST_S, LONGEST_S, Outages

URL = "https://mirror.example/v2"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_outage_is_remembered_for_a_while_and_longer_each_time() -> None:
    clock = Clock()
    outages = Outages(clock)
    assert not outages.is_bad(URL)
    for length in (60, 120, 240, 480, 600, 600):
        outages.failed(URL)
        clock.now += length - 1
        assert outages.is_bad(URL), length
        outages.failed(URL)  # again within it: that is the same outage, renewed
        clock.now += length - 1
        assert outages.is_bad(URL), length
        clock.now += 1
        assert not outages.is_bad(URL), length


def test_what_worked_is_forgotten() -> None:
    clock = Clock()
    outages = Outages(clock)
    outages.failed(URL)
    outages.worked(URL)
    outages.worked("https://never.failed/v2")
    assert not outages.is_bad(URL)
    outages.failed(URL)
    clock.now += FIRST_S
    assert not outages.is_bad(URL), "it began anew"


def test_retry_after_is_kept_whatever_succeeds_meanwhile() -> None:
    clock = Clock()
    outages = Outages(clock)
    outages.failed(URL, 20)
    outages.failed(URL)
    outages.worked(URL)
    assert outages.wait_s(URL) == 20
    clock.now += 20
    assert outages.wait_s(URL) == 0
    outages.worked(URL)
    assert not outages.is_bad(URL)


def test_a_very_long_retry_after_closes_nothing() -> None:
    outages = Outages(clock := Clock())
    outages.failed(URL, 6 * 3600)
    assert outages.wait_s(URL) == 0
    clock.now += LONGEST_S - 1
    assert outages.is_bad(URL)
    clock.now += 1
    assert not outages.is_bad(URL)


def test_the_oldest_are_forgotten_first() -> None:
    outages = Outages(Clock(), size=3)
    for number in range(3):
        outages.failed(f"https://{number}")
    outages.failed("https://0")
    outages.failed("https://3")
    assert [outages.is_bad(f"https://{number}") for number in range(4)] == [True, False, True, True]
