"""`phantom plan`: how a container's fragment starts it, op by op."""

from __future__ import annotations

from argparse import Namespace

from phantom_cri.api.phantom.v1 import node_pb2 as wire
from phantom_cri.cli.connection import connect
from phantom_cri.cli.pods import find_container
from phantom_cri.cli.tables import print_json, table

_MADE_AGAIN = (
    "Made again from the container's record, for this daemon has sent none. It may differ from what runs:\n"
    "files and devices are the node's as they are now, and /dev and /sys may come ready from the fragment."
)


async def plan(args: Namespace) -> int:
    async with connect(args.host) as daemon:
        container = await find_container(daemon, args.pod, args.container, running=False)
        shown = await daemon.node.ShowPlan(wire.ShowPlanRequest(container_id=container.id))
    if args.json:
        print_json(
            {
                "container_id": shown.container_id,
                "pod_id": shown.pod_sandbox_id,
                "sent": shown.sent,
                "ops": [{"name": op.name, "text": op.text} for op in shown.ops],
                "facts": {fact.name.lower().replace(" ", "_"): fact.text for fact in shown.facts},
            }
        )
    else:
        print(plan_text(shown))
    return 0


def plan_text(shown: wire.ShowPlanResponse) -> str:
    """The ops as a table, and then the confinement of the process."""
    facts = [("container", shown.container_id), ("pod", shown.pod_sandbox_id)]
    facts += [(fact.name, visible(fact.text)) for fact in shown.facts]
    width = max(len(name) for name, _ in facts)
    ops = [(str(index), op.name, visible(op.text)) for index, op in enumerate(shown.ops)]
    parts = [table(("OP", "NAME", "DOES"), ops)]
    parts.append("\n".join(f"{name:{width}}   {text}" for name, text in facts))
    return "\n\n".join(parts if shown.sent else [_MADE_AGAIN, *parts])


def visible(text: str) -> str:
    """`text` on one line, without terminal escapes: arguments and paths are untrusted."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
