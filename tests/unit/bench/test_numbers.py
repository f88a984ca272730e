"""The arithmetic of the benchmark: what it claims has to follow from what it saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.memory import PodFootprint
from bench.numbers import EMPTY_POOL, PHANTOM, Result, percentile, targets
from bench.report import BEGIN, END, Report
from bench.stages import Stages, quantile

PAGE = """\
# TYPE phantom_pod_start_seconds histogram
phantom_pod_start_seconds_bucket{le="0.001",stage="claim",start="warm"} 10
phantom_pod_start_seconds_bucket{le="0.002",stage="claim",start="warm"} 20
phantom_pod_start_seconds_bucket{le="+Inf",stage="claim",start="warm"} 20
phantom_pod_start_seconds_sum{stage="claim",start="warm"} 0.02
phantom_pod_start_seconds_count{stage="claim",start="warm"} 20
phantom_pod_start_seconds_bucket{le="+Inf",stage="claim",start="cold"} 0
phantom_pod_start_seconds_sum{stage="claim",start="cold"} 0
"""


def result(milliseconds: float, cycles: float, pss_mib: float = 0.1) -> Result:
    """Every duration alike."""
    made = Result(
        {"it": "1"}, {key: [milliseconds] * 20 for key in ("pod", "ExecSync", "teardown")}, [cycles]
    )
    made.memory = PodFootprint(pss_mib, 1.0)
    made.summarise()
    return made


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile([7.0], 0.95)) == (50.0, 95.0, 7.0)


def test_targets_compare_with_the_better_peer() -> None:
    results = {
        PHANTOM: result(4, 120),
        "containerd + runc": result(200, 5),
        "containerd + crun": result(100, 10),
    }
    by_name = {target.text: target for target in targets(results)}
    assert by_name["warm pod, p50"].measured == "25.0 ×"
    assert by_name["warm pod, p50"].met
    assert by_name["pod cycles per second, 8 at once"].measured == "12.0 ×"
    assert "empty pool, p95" not in by_name


@pytest.mark.parametrize("slow", [result(6, 120), result(4, 90), result(4, 120, pss_mib=0.6)])
def test_a_missed_target_is_told(slow: Result) -> None:
    results = {PHANTOM: slow, EMPTY_POOL: result(10, 50), "containerd + crun": result(100, 10)}
    assert not all(target.met for target in targets(results))


@pytest.mark.parametrize(("rate", "met"), [(500.0, True), (399.0, False)])
def test_a_stream_must_not_be_slower_than_the_better_peers(rate: float, met: bool) -> None:
    results = {
        PHANTOM: result(4, 120),
        "containerd + runc": result(200, 5),
        "containerd + crun": result(100, 10),
    }
    for name, mib in ((PHANTOM, rate), ("containerd + runc", 400.0), ("containerd + crun", 300.0)):
        results[name].mib_per_second["port-forward"] = [mib, 2 * mib, mib / 2]
    (target,) = (target for target in targets(results) if target.text == "port-forward, MiB/s")
    assert target.met is met


def test_no_targets_without_both_sides() -> None:
    assert targets({PHANTOM: result(4, 120)}) == []
    assert targets({"containerd + crun": result(100, 10)}) == []


def test_stages_come_from_the_daemons_histograms() -> None:
    stages = Stages()
    stages.begin("")
    stages.end(PAGE)
    (stage,) = stages.stages()
    assert (stage.stage, stage.start, stage.count) == ("claim", "warm", 20)
    assert stage.mean_ms == pytest.approx(1.0)
    assert stage.p95_ms == pytest.approx(1.9)


def test_stages_leave_out_what_was_before() -> None:
    stages = Stages()
    stages.begin(PAGE)
    stages.end(PAGE)
    assert stages.stages() == []


def test_a_quantile_above_all_buckets_is_the_last_bound() -> None:
    assert quantile({0.1: 1, float("inf"): 100}, 0.95) == 0.1


def test_the_table_replaces_what_is_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    report = Report({"containerd + crun": result(100, 10)}, [], {}, {})
    report.write_docs(page)
    report.write_docs(page)
    text = page.read_text()
    assert "old" not in text
    assert text.count("100.00 / 100.00") == 3
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(ValueError, match="no place for the results"):
        Report({}, [], {}, {}).write_docs(page)
