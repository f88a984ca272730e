"""Logs each plan at level debug when it is sent: one record with a line per op."""

from __future__ import annotations

import logging

from phantom_cri.plans import constants
from phantom_cri.plans.plan import Plan

log = logging.getLogger(__name__)


def log_plan(plan: Plan, process_id: str, sandbox_id: str) -> None:
    """`process_id`: "" for plans that the fragment runs on itself. Without debug only the level is checked.

    The description of an op never has values of environment variables, so no log has.
    """
    if not log.isEnabledFor(logging.DEBUG):
        return
    lines = plan.numbered()
    ids = {"sandbox_id": sandbox_id}
    if plan.kind == constants.KIND_CONTAINER:
        ids["container_id"] = process_id
    subject = f"process {process_id}" if process_id else "the fragment itself"
    log.debug("plan for %s: %d ops", subject, len(lines), extra={**ids, "lines": lines})
