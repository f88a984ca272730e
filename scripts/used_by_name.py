"""What `make lint` does not take for dead code although no line of ours names it: vulture reads this as uses.

One line for each name, under the reason.
"""
# ruff: noqa: B018, F821

# grpc calls the methods of a servicer by the names of the .proto (phantom_cri.cri.interceptors.Calls).
_.CheckpointContainer
_.ExecSync
_.GetContainerEvents
_.ImageFsInfo
_.ListContainerStats
_.ListMetricDescriptors
_.ListPodSandboxMetrics
_.ListPodSandboxStats
_.PortForward
_.PullImage
_.RemoveContainer
_.ReopenContainerLog
_.RuntimeConfig
_.Status
_.StreamContainerStats
_.StreamContainers
_.StreamImages
_.StreamPodSandboxMetrics
_.StreamPodSandboxStats
_.StreamPodSandboxes
_.UpdateContainerResources
_.UpdatePodSandboxResources
_.UpdateRuntimeConfig

# The same for containerd's (phantom_cri.rpc.ttrpc_server).
_.Create
_.Delete
_.Kill
_.Wait
_.Pause
_.Resume
_.ResizePty
_.CloseIO
_.Update
_.Stats
_.Connect
_.Shutdown

# asyncio calls these of a protocol, with these arguments.
_.connection_made
_.connection_lost
_.get_buffer
_.buffer_updated
_.eof_received
_.pause_writing
_.resume_writing
sizehint
exc

# tarfile writes these attributes of a member.
_.mtime
_.devmajor
_.devminor
_.linkname
_.pax_headers

# Compared as a whole: what tells a file from a later one.
_.inode
_.ctime_ns

# Read by the name of the field, or sent as one: counters of an interface, fields of an op and of an answer.
_.rx_packets
_.rx_dropped
_.tx_packets
_.tx_dropped
_.envp
_.dropped_lines
_.phase

# Sent as counts: each room's statistics in a verbose Status.
_.attached
_.early_exits
_.pulls
_.awaited
_.unclaimed
_.event_readers
_.unwritten_records
_.leaving
_.selinux_levels
_.urls
_.unasked
_.sleepers

# Values that the fragment sends (native/protocol.h).
_.WARM
_.CLAIMED
_.STOPPING
_.RUNNING

# CDI files may have them: without the fields they would be refused as mistyped.
_.clos_id
_.l3_cache_schema
_.mem_bw_schema
_.enable_cmt
_.enable_mbm

# Flags of an op that the tests of the fragment use; what planners ask whose op not every fragment knows.
_.OVERLAY_JOINED
_.OVERLAY_CLASSIC
_.knows
