"""The verbs of the runtime, one file each, and what they share.

Every verb has one shape: look up, check, undo, act, record, one log line. This
room composes the ones below it (launch, images, network, policy, pools, cgroups),
which do not know of each other. It knows no protobuf.
"""
