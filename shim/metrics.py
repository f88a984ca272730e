"""What a task uses, as containerd has it for cgroup v2: on v1 nodes too, as its clients know both forms."""

from __future__ import annotations

from phantom_cri.api.containerd import metrics_pb2 as pb
from phantom_cri.usage import CgroupUsage

_US = 1000
_UNLIMITED = (1 << 64) - 1


def metrics_of(usage: CgroupUsage) -> pb.Metrics:
    found = pb.Metrics(
        pids=pb.PidsStat(current=usage.tasks.tasks, limit=usage.tasks.limit),
        cpu=pb.CPUStat(
            usage_usec=usage.cpu.usage_ns // _US,
            user_usec=usage.cpu.user_ns // _US,
            system_usec=usage.cpu.system_ns // _US,
            nr_periods=usage.cpu.periods,
            nr_throttled=usage.cpu.throttled_periods,
            throttled_usec=usage.cpu.throttled_ns // _US,
        ),
    )
    memory = usage.memory
    if memory is not None:
        found.memory.CopyFrom(
            pb.MemoryStat(
                anon=memory.rss,
                file=memory.cache,
                file_mapped=memory.mapped_file,
                inactive_file=max(memory.usage - memory.working_set, 0),
                pgfault=memory.page_faults,
                pgmajfault=memory.major_page_faults,
                usage=memory.usage,
                usage_limit=memory.limit or _UNLIMITED,
                swap_usage=memory.swap,
                max_usage=memory.most or 0,
            )
        )
        events = pb.MemoryEvents(max=memory.limit_hits or 0, oom_kill=memory.oom_kills)
        found.memory_events.CopyFrom(events)
    return found
