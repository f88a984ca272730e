"""`python -m tests.e2e.critest`: runs critest and prints what passed, by group; --docs: into that page."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.critest.expected import surprises
from tests.e2e.critest.runs import CONTAINERD, OURS, Result, perform
from tests.e2e.critest.suite import Report

RUNS = {run.name: run for run in (*OURS, CONTAINERD)}
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.e2e.critest", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=[*RUNS], metavar="RUN", help=str([*RUNS]))
    parser.add_argument("--output", type=Path, default=Path("build/critest"), help="where its output goes")
    parser.add_argument("--docs", type=Path, help="page whose table is replaced, e.g. docs/conformance.md")
    return parser.parse_args()


def table(reports: Mapping[str, Report]) -> str:
    """Passed specs of all that ran, by group; skipped ones behind them."""
    groups = sorted({spec.group for report in reports.values() for spec in report.specs.values()})
    rows = [["specs that pass", *reports]]
    rows += [[group, *(cell(report, group) for report in reports.values())] for group in groups]
    rows.append(["**all**", *(cell(report) for report in reports.values())])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def cell(report: Report, group: str = "") -> str:
    specs = [spec for spec in report.specs.values() if group in ("", spec.group)]
    passed = sum(spec.outcome == "passed" for spec in specs)
    skipped = sum(spec.outcome == "skipped" for spec in specs)
    if not specs:
        return ""
    return f"{passed} of {len(specs) - skipped}" + (f", {skipped} skipped" if skipped else "")


def write_docs(page: Path, text: str) -> None:
    """Replaces what stands between the markers; raises ValueError when the page has none."""
    before, found, rest = page.read_text().partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{page}: no place for the results: {BEGIN}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> int:
    options = arguments()
    results: dict[str, Result] = {}
    for name in options.only:
        print(f"critest, {name} …", file=sys.stderr, flush=True)
        folder = options.output.resolve() / re.sub(r"\W+", "-", name.lower())
        results[name] = perform(RUNS[name], folder)
    reports = {name: result.report for name, result in results.items()}
    text = table(reports)
    print(text)
    if options.docs:
        write_docs(options.docs, text)
    found = {name: surprises(report, RUNS[name].lacks) for name, report in reports.items()}
    lines = [line for name, surprising in found.items() for line in (f"\n{name}:", *surprising)]
    print("\n".join(lines), file=sys.stderr)
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
