"""The verbs of the runtime, one file each, and shared functions.

Every verb has the same steps: look up, check, undo, act, record, one log line. This package composes the
lower ones (fragments, plans, requests, images, network, policy, pools, cgroups), which are independent of
each other. It does not use protobuf.
"""
